//! Who descends from a process, and the end of all of them.
//!
//! The kernel's own list of children (`/proc/PID/task/TID/children`) is not in every kernel: the
//! parents are read out of `/proc/PID/stat` (proc(5)).

use std::collections::{HashMap, HashSet};

use rustix::process::{Pid, Signal, kill_process};

/// How often a family is looked at again until nobody new is found.
const ROUNDS: usize = 50;

/// The living processes of one moment, by their parents.
#[derive(Debug, Default)]
pub(crate) struct Families(HashMap<Pid, Vec<FamilyMember>>);

#[derive(Clone, Copy, Debug)]
struct FamilyMember {
    pid: Pid,
    dead: bool,
}

impl Families {
    /// Reads every process that there is.
    pub(crate) fn read() -> Self {
        let mut families = Self::default();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
            let Some(pid) = pid else { continue };
            // Who is gone by now has no line.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            if let Some((parent, dead)) = parent(&stat) {
                families.0.entry(parent).or_default().push(FamilyMember { pid, dead });
            }
        }
        families
    }

    /// The children of `root` that have ended and were not waited for, but for the `spared`.
    pub(crate) fn dead(&self, root: Pid, spared: &HashSet<Pid>) -> Vec<Pid> {
        let children = self.0.get(&root).into_iter().flatten();
        let dead = children.filter(|child| child.dead && !spared.contains(&child.pid));
        dead.map(|child| child.pid).collect()
    }

    /// Who lives beneath `root`, parents first; not the `spared`, nor whoever is beneath them.
    pub(crate) fn beneath(&self, root: Pid, spared: &HashSet<Pid>) -> Vec<Pid> {
        let mut found = vec![root];
        let mut next = 0;
        while let Some(parent) = found.get(next) {
            let children = self.0.get(parent).into_iter().flatten();
            let living = children.filter(|child| !child.dead && !spared.contains(&child.pid));
            let living: Vec<_> = living.map(|child| child.pid).collect();
            found.extend(living);
            next += 1;
        }
        found.remove(0);
        found
    }
}

/// The parent of a line of `/proc/PID/stat`, and whether its process is dead. The name, the second
/// field, may hold anything.
fn parent(stat: &str) -> Option<(Pid, bool)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    Some((Pid::from_raw(fields.next()?.parse().ok()?)?, dead))
}

/// Kills all that lives beneath `root`, but for the `spared`. Says how many there were.
///
/// They are stopped first, until nobody new is found, and then killed: a process with a signal
/// pending cannot fork, so that even a family that grows comes to an end; and of a stopped parent
/// no child is reaped, so that no number can become somebody else's meanwhile.
pub(crate) fn kill_beneath(root: Pid, spared: &HashSet<Pid>) -> usize {
    let mut stopped = HashSet::new();
    for _ in 0..ROUNDS {
        let before = stopped.len();
        for pid in Families::read().beneath(root, spared) {
            if stopped.insert(pid) {
                // Whoever is gone already needs no signal.
                let _gone = kill_process(pid, Signal::STOP);
            }
        }
        if stopped.len() == before {
            break;
        }
    }
    for pid in &stopped {
        let _gone = kill_process(*pid, Signal::KILL);
    }
    stopped.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: i32) -> Pid {
        Pid::from_raw(raw).unwrap()
    }

    #[test]
    fn a_name_cannot_disguise_the_parent() {
        assert_eq!(parent("7 (sh) S 5 7 7 0 -1"), Some((pid(5), false)));
        assert_eq!(parent("7 (a) Z 1 (b) Z 5 7 7"), Some((pid(5), true)));
        assert_eq!(parent("1 (init) S 0 1 1"), None);
        assert_eq!(parent("7 (sh"), None);
        assert_eq!(parent(""), None);
    }

    #[test]
    fn a_family_ends_where_another_is_spared() {
        let mut families = Families::default();
        for (parent, child, dead) in
            [(1, 2, false), (2, 3, false), (2, 4, true), (1, 5, false), (5, 6, false), (1, 7, true)]
        {
            let member = FamilyMember { pid: pid(child), dead };
            families.0.entry(pid(parent)).or_default().push(member);
        }
        let nobody = HashSet::new();
        assert_eq!(families.beneath(pid(1), &nobody), [2, 5, 3, 6].map(pid));
        assert_eq!(families.beneath(pid(1), &[pid(5)].into()), [2, 3].map(pid));
        assert_eq!(families.beneath(pid(6), &nobody), []);
        assert_eq!(families.dead(pid(1), &nobody), [pid(7)]);
        assert_eq!(families.dead(pid(1), &[pid(7)].into()), []);
    }
}
