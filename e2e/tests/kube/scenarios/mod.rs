//! What users do, in one cluster of two nodes with the mesh installed. Each scenario has a namespace of its own and says
//! what it measured.

mod domain;
mod door;
mod envoy;
mod guide;
mod isolation;
mod jobs;
mod limits;
mod load;
mod mesh;
mod objects;
mod outage;
mod ports;
mod restart;
mod revisions;
mod security;
mod space;
mod traffic;
mod upgrade;
