//! The meshctl binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = meshctl::cli::parse();
    match meshctl::cli::run(cli) {
        Ok(code) => code,
        Err(error) if meshctl::output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            meshctl::output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
