//! What everything here stands on: the crate's own runtime, and deadlines.
//!
//! Servers and connection drivers run on this runtime; what a test awaits directly runs on the
//! test's. The one rule: every wait a test can see goes through [`within`].

use std::{future::Future, sync::OnceLock, time::Duration};

use tokio::{runtime::Runtime, task::JoinHandle};

/// How long anything here waits before it fails the test: long enough for a loaded machine with two
/// cores, short enough that a hanging test says so while someone still looks.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Threads of the crate's runtime: one may be busy with a flood while the other answers.
const THREADS: usize = 2;

/// Starts a task that outlives the caller's runtime.
pub(crate) fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime().spawn(task)
}

/// Runs `make` where sockets register with the crate's runtime.
pub(crate) fn inside<T>(make: impl FnOnce() -> T) -> T {
    let _entered = runtime().enter();
    make()
}

/// The result of `wait`, or a panic that says what was waited for.
pub(crate) async fn within<T>(limit: Duration, what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, wait).await {
        Ok(result) => result,
        Err(_) => panic!("waited {limit:?} in vain for {what}"),
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("chaos")
            .enable_all()
            .build()
            .expect("a runtime for the peers")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "in vain for the moon")]
    async fn a_wait_ends_and_says_what_for() {
        within(Duration::from_millis(10), "the moon", std::future::pending::<()>()).await;
    }

    #[test]
    fn tasks_run_while_the_test_blocks() {
        let (tell, hear) = std::sync::mpsc::channel();
        spawn(async move { tell.send(1) });
        assert_eq!(hear.recv_timeout(DEADLINE), Ok(1));
    }
}
