//! The program `limbeck`: see `limbeck help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
