//! `fencelock`: distributed locks on the command line. See `docs/cli.md`.

mod backend;
mod child;
mod cli;
mod clock;
mod duration;
mod exit;
mod group;
mod guardian;
mod leash;
mod look;
mod orders;
mod run;
mod shim;
mod signals;
mod supervise;
mod terminal;
mod tidings;
mod verify;
mod voice;
mod watch;

use std::env;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::cli::{Cli, Verb};
use crate::exit::{Failure, OWN_FAILURE};
use crate::voice::insist;

fn main() -> ExitCode {
    ExitCode::from(dispatch())
}

fn dispatch() -> u8 {
    // What this program starts itself as; not for people, so not in the help either.
    match env::args_os().nth(1).as_deref().and_then(|verb| verb.to_str()) {
        Some("__exec") => return shim::run(env::args_os().skip(2)),
        Some("__guard") => return guardian::run(env::args_os().skip(2)),
        Some("__anchor") => return 0,
        Some(_) | None => {}
    }
    match Cli::try_parse() {
        Ok(cli) => execute(cli.command).unwrap_or_else(Failure::tell),
        Err(error) => usage(&error),
    }
}

/// One thread: a child's parent, for the kernel, is the thread that started it, and must not end before it.
fn execute(verb: Verb) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::own(format!("cannot start: {error}")))?;
    let code = runtime.block_on(async {
        match verb {
            Verb::Run(args) => run::run(args).await,
            Verb::Inspect(args) => look::inspect(args).await,
            Verb::Break(args) => look::break_lock(args).await,
            Verb::List(args) => look::list(args).await,
            Verb::Verify(args) => verify::verify(&args),
        }
    });
    // A name lookup may still be under way on a thread; nobody waits for it.
    runtime.shutdown_background();
    code
}

/// What clap has to say: help is an answer, the rest is a failure of our own, so that a child's 2 stays clear.
fn usage(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed pipe is the reader's business.
        let _ = error.print();
        return 0;
    }
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{text}");
        return OWN_FAILURE;
    }
    insist(text.strip_prefix("error: ").unwrap_or(&text).trim_end());
    OWN_FAILURE
}
