//! What the process gives up before it reads a secret: dumping its memory, being looked into by other
//! programs of its user, and gaining rights by what it would execute. Where the system does not know
//! one of these, the gateway serves all the same; `docs/hardening.md` says what the system's own means
//! do better.

/// Gives it up, for this process and all it may start.
pub(crate) fn harden() {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{
            DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit,
        };
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let done = [
            ("core dumps", setrlimit(Resource::Core, none)),
            ("dumping", set_dumpable_behavior(DumpableBehavior::NotDumpable)),
            ("new privileges", rustix::thread::set_no_new_privs(true)),
        ];
        for (what, outcome) in done {
            if let Err(error) = outcome {
                tracing::warn!(%error, "cannot switch off {what}");
            }
        }
    }
}
