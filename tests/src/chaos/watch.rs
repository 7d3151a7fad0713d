//! Who the members are and who leads, as far as somebody knows who asks all the time.

use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hovercraft::admin::MembersReport;
use hovercraft::client::{ClientOptions, Operator};

/// How often the members are asked for.
const WATCH: Duration = Duration::from_millis(50);

/// Who the members are, as far as somebody who asks all the time knows.
pub(super) struct Watch {
    known: Arc<Mutex<Option<MembersReport>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn new(options: &ClientOptions) -> io::Result<Self> {
        let mut operator = Operator::connect(options).map_err(io::Error::other)?;
        let known = Arc::new(Mutex::new(None));
        let (stop, stopped) = mpsc::channel::<()>();
        let write = Arc::clone(&known);
        let thread = thread::spawn(move || {
            while stopped.recv_timeout(WATCH) == Err(mpsc::RecvTimeoutError::Timeout) {
                let report = operator.members(Duration::from_millis(500)).ok();
                *write.lock().unwrap_or_else(PoisonError::into_inner) = report;
            }
        });
        Ok(Self { known, stop: Some(stop), thread: Some(thread) })
    }

    pub(super) fn known(&self) -> Option<MembersReport> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without a sender the thread ends.
        self.stop = None;
        _ = self.thread.take().map(JoinHandle::join);
    }
}
