//! The guardian: a process beside the wrapper that ends the child when the wrapper cannot.
//!
//! It is this program again, as `fencelock __guard`, with a socket to the wrapper as its stdin. It lives as long as the
//! child and does nothing in the ordinary case. When the wrapper dies, the socket ends, and so does the child. When the
//! wrapper is stopped or hangs, it renews nothing, and the guardian ends the child by the deadline that it was told.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use crate::child::own_command;
use crate::clock::{Alarm, Moment};
use crate::exit::OWN_FAILURE;
use crate::group;
use crate::leash::{Due, Leash};
use crate::orders::{ACTED, Order, READY, WATCHING};

/// How often an orphaned child is looked at, to be gone as soon as it is.
const LOOK: Duration = Duration::from_millis(20);

/// Guards until the wrapper says that it is over, or until what it left behind has ended.
pub(crate) fn run(mut args: impl Iterator<Item = OsString>) -> u8 {
    let grace = args.next().and_then(|nanos| nanos.to_str()?.parse().ok()).map(Duration::from_nanos);
    let Some(grace) = grace else { return OWN_FAILURE };
    // Nothing that is meant for the job ends its guardian: Ctrl-C, a hang-up, a shutdown's TERM. Only KILL does.
    let blocked = SigSet::all().thread_block();
    // `killall -9 fencelock` is to find the wrapper, not the one who tidies up after it.
    let named = rustix::thread::set_name(c"fencelock-guard");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (Ok(()), Ok(()), Ok(runtime)) = (blocked, named, runtime) else { return OWN_FAILURE };
    match runtime.block_on(guard(grace)) {
        Ok(()) => 0,
        Err(_) => OWN_FAILURE,
    }
}

async fn guard(grace: Duration) -> io::Result<()> {
    let socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let (read, mut write) = UnixStream::from_std(socket)?.into_split();
    let mut orders = BufReader::new(read).lines();
    let alarm = Alarm::new()?;
    let mut leash = Leash::new(Moment::NEVER, grace);
    let mut watched: Option<Watched> = None;
    let mut orphaned = false;
    write.write_all(format!("{READY}\n").as_bytes()).await?;
    loop {
        let look = if orphaned { Moment::now().plus(LOOK) } else { Moment::NEVER };
        tokio::select! {
            // First what the wrapper says: after a pause a newer deadline may lie there.
            biased;
            line = orders.next_line(), if !orphaned => {
                let line = line.ok().flatten();
                match line.as_deref().map(Order::parse) {
                    Some(Some(Order::Watch(group))) => {
                        watched = Some(Watched::new(group)?);
                        write.write_all(format!("{WATCHING}\n").as_bytes()).await?;
                    }
                    Some(Some(Order::Deadline(deadline))) => leash.renewed(deadline),
                    Some(Some(Order::StandDown)) => return Ok(()),
                    Some(None) => {}
                    // The wrapper has died.
                    None => {
                        orphaned = true;
                        leash.cut(Moment::now());
                    }
                }
            }
            rang = alarm.at(leash.next().min(look)) => rang?,
        }
        let Some(watched) = &watched else {
            if orphaned {
                return Ok(());
            }
            continue;
        };
        let due = leash.due(Moment::now());
        // A child that may not be signalled (another user's) is out of reach for the wrapper too, which has said so.
        let _ = match due {
            Due::Nothing => Ok(()),
            Due::Term => group::signal(watched.group, Signal::TERM),
            Due::Kill => group::signal(watched.group, Signal::KILL),
        };
        if due != Due::Nothing && !orphaned {
            // A wrapper that hangs reads it later, or never.
            let _ = write.try_write(format!("{ACTED}\n").as_bytes());
        }
        if orphaned && (leash.is_killed() || !group::is_running(watched.group)) {
            return Ok(());
        }
    }
}

/// A process group whose id stays taken as long as this lives.
///
/// The wrapper's death leaves the child to init, which waits for it, and its id could then be a stranger's. So the
/// guardian has a child of its own in that group, which ends at once and is never waited for.
#[derive(Debug)]
struct Watched {
    group: Pid,
    _anchor: Child,
}

impl Watched {
    fn new(group: Pid) -> io::Result<Watched> {
        let anchor = own_command("__anchor")
            .process_group(group.as_raw_nonzero().get())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Watched { group, _anchor: anchor })
    }
}
