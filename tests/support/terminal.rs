//! A terminal that a program can be started on.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// `O_NOCTTY`: the test itself is not to get it.
const NO_CONTROL: i32 = 0o400;

/// Its master, and the side for the program. It goes away with its master.
pub(crate) fn terminal() -> (OwnedFd, File) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let mut options = OpenOptions::new();
    let side = options.read(true).write(true).custom_flags(NO_CONTROL).open(name).unwrap();
    (master, side)
}
