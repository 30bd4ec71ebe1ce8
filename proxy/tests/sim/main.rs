//! Seeded simulations of `serve_stream` (design 7.7): virtual bytes, seeded operations, invariants after every step.
//!
//! `SIM_SEEDS=n` runs n seeds of each (10,000 in `make sim`), `SIM_SEED=n` replays one; a failing seed is printed.

mod authz_buffers_bidi;
mod mirror_of_stream;
mod retry_spills;
mod stalled_upload;
mod world;
