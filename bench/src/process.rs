//! Processor time of processes and threads, and on which cores they run.

use std::fs;
use std::io;
use std::time::Duration;

/// Processor time of a process, all its threads that live together.
///
/// # Errors
/// If there is no such process, or the system does not say.
pub fn processor_time(pid: u32) -> io::Result<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        nanos +=
            on_processor(&text).ok_or_else(|| io::Error::other("/proc/<pid>/task/<tid>/schedstat says nothing"))?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time of the calling thread.
pub fn own_thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours. The clock exists, so this cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// How often the threads of a process gave up the processor because they had nothing to do.
///
/// # Errors
/// If there is no such process.
pub fn voluntary_switches(pid: u32) -> io::Result<u64> {
    let mut switches = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(thread?.path().join("status")) else { continue };
        switches += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
    }
    Ok(switches)
}

/// Lets the calling thread, and threads and processes it starts from now on, run on these cores only.
///
/// # Errors
/// If there is no such core.
pub fn pin(cores: &[usize]) -> io::Result<()> {
    // SAFETY: a set of bits, all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for &core in cores {
        if core >= libc::CPU_SETSIZE as usize {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // SAFETY: within the set, as checked.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: the set is ours and as large as we say.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The cores on which the calling thread may run.
///
/// # Errors
/// If the system does not say.
pub fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: a set of bits, all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours and as large as we say.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all within the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Makes timers of the calling thread as exact as the system can; without it they are up to 50 µs late.
pub fn exact_timers() {
    // SAFETY: sets a number of the calling thread. If it is refused, timers stay as they are, and the lag shows it.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn on_processor(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().next()?.parse().ok()
}

/// The number after a name at the beginning of a line.
fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        assert_eq!(on_processor("7325961 1200 31\n"), Some(7_325_961));
        assert_eq!(on_processor(""), None);
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t150\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(150));
    }

    #[test]
    fn own_time_grows_with_work() {
        let (before, all_before) = (own_thread_time(), processor_time(std::process::id()).expect("Linux says"));
        let mut work = 0_u64;
        while own_thread_time() < before + Duration::from_millis(20) {
            work = std::hint::black_box(work.wrapping_mul(31).wrapping_add(7));
        }
        let all = processor_time(std::process::id()).expect("Linux says") - all_before;
        // The kernel brings this one up to date at every tick only.
        assert!(all >= Duration::from_millis(5), "{all:?}");
        assert!(processor_time(u32::MAX).is_err());
    }

    #[test]
    fn a_thread_can_be_pinned_to_a_core_it_has() {
        std::thread::spawn(|| {
            let first = cores().expect("Linux says")[0];
            pin(&[first]).expect("it is ours");
            assert_eq!(cores().expect("Linux says"), [first]);
            assert!(pin(&[usize::MAX]).is_err());
        })
        .join()
        .expect("passes");
    }
}
