//! The system calls, each behind a safe function. All `unsafe` of the datapath is here.

use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of, size_of_val};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use libc::{c_int, c_void, iovec, mmsghdr, pollfd, sockaddr_in, socklen_t};

/// Most datagrams per system call. More would save little (the call itself is then a few per cent of the work) and let
/// one socket keep the others waiting.
pub(super) const SYSCALL_BATCH: usize = 64;

/// One received datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Nothing if the source is not an IPv4 address.
    pub from: Option<SocketAddrV4>,
    pub len: usize,
    /// It was larger than the place it was received into.
    pub truncated: bool,
}

/// Receives at most `count` (and at most [`SYSCALL_BATCH`]) datagrams without blocking: datagram `i` goes to `size` bytes
/// of `buffer` from `i * stride` on. `heads` is replaced by one head for each datagram received.
///
/// # Panics
/// If `buffer` is too small for that.
pub(super) fn receive(
    fd: BorrowedFd<'_>,
    buffer: &mut [u8],
    count: usize,
    stride: usize,
    size: usize,
    heads: &mut Vec<Head>,
) -> io::Result<()> {
    heads.clear();
    let count = count.min(SYSCALL_BATCH);
    assert!(size <= stride, "datagrams would overlap");
    assert!(count * stride <= buffer.len(), "the buffer is too small");

    let mut names = [const { MaybeUninit::<sockaddr_in>::uninit() }; SYSCALL_BATCH];
    let mut parts = [const { MaybeUninit::<iovec>::uninit() }; SYSCALL_BATCH];
    let mut messages = [const { MaybeUninit::<mmsghdr>::uninit() }; SYSCALL_BATCH];
    for (i, place) in buffer.chunks_exact_mut(stride).take(count).enumerate() {
        let name = names[i].write(address_to_kernel(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)));
        let part = parts[i].write(iovec { iov_base: place.as_mut_ptr().cast(), iov_len: size });
        messages[i].write(message(name, part));
    }

    let received = loop {
        // SAFETY: the first `count` messages were initialised above. Each points to a name and a part of its own, which
        // outlive the call; each part is `size <= stride` bytes of a chunk of its own of `buffer`, which is mutably
        // borrowed. No timeout is given.
        let result = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                messages.as_mut_ptr().cast(),
                count as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        match check(result) {
            Ok(received) => break received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    for (message, name) in messages[..received].iter().zip(&names) {
        // SAFETY: `received <= count`, and the first `count` of both were initialised above; the kernel only wrote plain
        // integers into them.
        let (message, name) = unsafe { (message.assume_init_ref(), name.assume_init_ref()) };
        heads.push(Head {
            from: address_from_kernel(name),
            len: message.msg_len as usize,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        });
    }
    Ok(())
}

/// Sends datagrams in order without blocking, at most [`SYSCALL_BATCH`], and says how many the kernel took. It is an
/// error if it did not take the first.
pub(super) fn send<'a>(
    fd: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (SocketAddrV4, &'a [u8])>,
) -> io::Result<usize> {
    let mut names = [const { MaybeUninit::<sockaddr_in>::uninit() }; SYSCALL_BATCH];
    let mut parts = [const { MaybeUninit::<iovec>::uninit() }; SYSCALL_BATCH];
    let mut messages = [const { MaybeUninit::<mmsghdr>::uninit() }; SYSCALL_BATCH];
    let mut count = 0;
    for (i, (to, bytes)) in datagrams.take(SYSCALL_BATCH).enumerate() {
        let name = names[i].write(address_to_kernel(to));
        let part = parts[i].write(iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        messages[i].write(message(name, part));
        count = i + 1;
    }
    if count == 0 {
        return Ok(0);
    }
    // SAFETY: the first `count` messages were initialised above. Each points to a name and a part of its own, which outlive
    // the call, and each part to bytes that are borrowed for longer; the kernel only reads those.
    let result =
        unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr().cast(), count as _, libc::MSG_DONTWAIT as _) };
    check(result)
}

/// A wish to be told about `events` of `fd`.
pub(super) fn interest(fd: BorrowedFd<'_>, events: i16) -> pollfd {
    pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
}

/// Waits until one of `fds` has what it asks for, for at most `timeout`. Says how many have.
pub(super) fn poll(fds: &mut [pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `fds` is as long as said and mutably borrowed; `timeout` is null or points to a value that lives until the
    // end of this function; a null signal mask leaves the mask alone.
    check(unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as _, timeout, std::ptr::null()) })
}

/// A new eventfd as a file: eight bytes written add to its counter, eight bytes read fetch and zero it.
pub(super) fn event_file() -> io::Result<File> {
    // SAFETY: takes two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// How many arrived datagrams the kernel has thrown away on this socket since it was made, modulo 2^32.
pub(super) fn kernel_drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = [0_u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&info) as socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of `info`, to it; any bytes are a `u32`.
    check(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            info.as_mut_ptr().cast::<c_void>(),
            &raw mut len,
        )
    })?;
    if (len as usize) < size_of_val(&info) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok(info[libc::SK_MEMINFO_DROPS as usize])
}

/// Sets a buffer size (`SO_RCVBUFFORCE`, `SO_SNDBUFFORCE`) beyond the system's limit, which needs a privilege.
pub(super) fn force_buffer_size(fd: BorrowedFd<'_>, option: c_int, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    // SAFETY: the kernel reads the size of an int from an int.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const bytes).cast::<c_void>(),
            size_of::<c_int>() as socklen_t,
        )
    })?;
    Ok(())
}

/// A message with one name and one part.
fn message(name: &mut sockaddr_in, part: &mut iovec) -> mmsghdr {
    // SAFETY: all zero is a valid message header: null pointers with zero lengths. (It has private padding on some
    // targets, so it cannot be written as a literal.)
    let mut message: mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_hdr.msg_name = std::ptr::from_mut(name).cast();
    message.msg_hdr.msg_namelen = size_of::<sockaddr_in>() as socklen_t;
    message.msg_hdr.msg_iov = part;
    message.msg_hdr.msg_iovlen = 1;
    message
}

fn address_to_kernel(address: SocketAddrV4) -> sockaddr_in {
    sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*address.ip()).to_be() },
        sin_zero: [0; 8],
    }
}

fn address_from_kernel(name: &sockaddr_in) -> Option<SocketAddrV4> {
    (c_int::from(name.sin_family) == libc::AF_INET)
        .then(|| SocketAddrV4::new(Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)), u16::from_be(name.sin_port)))
}

/// The result of a system call that returns a count, or -1 and sets `errno`.
fn check(result: c_int) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        let address = SocketAddrV4::new(Ipv4Addr::new(239, 1, 2, 3), 0x1234);
        let name = address_to_kernel(address);
        assert_eq!(name.sin_port.to_ne_bytes(), [0x12, 0x34]);
        assert_eq!(name.sin_addr.s_addr.to_ne_bytes(), [239, 1, 2, 3]);
        assert_eq!(address_from_kernel(&name), Some(address));
        let other = sockaddr_in { sin_family: libc::AF_INET6 as libc::sa_family_t, ..name };
        assert_eq!(address_from_kernel(&other), None);
    }
}
