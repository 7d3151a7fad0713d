//! Disks so small that a test can fill them: file systems in memory, each seen by the processes of one test only.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// File systems, in a namespace that a process of their own keeps. They are gone when this is dropped.
#[derive(Debug)]
pub struct Disks {
    keeper: Child,
    has_users: bool,
}

impl Disks {
    /// No file system yet. Nothing, after a line that says so, where the system allows nobody to mount any.
    pub fn new(test: &str) -> Option<Self> {
        // Who may not mount anything may do so in a namespace where it is root.
        let found = [true, false].into_iter().find_map(|has_users| {
            let mut command = Command::new("unshare");
            if has_users {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh", "-c", "echo ready; exec cat"]);
            let mut keeper = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
            let mut line = String::new();
            _ = BufReader::new(keeper.stdout.take()?).read_line(&mut line);
            let disks = Self { keeper, has_users };
            let probe = crate::fresh_directory();
            let works = line == "ready\n" && fs::create_dir(&probe).is_ok() && disks.try_mount(&probe, 1 << 20);
            _ = fs::remove_dir(&probe);
            works.then_some(disks)
        });
        if found.is_none() {
            eprintln!("{test} skipped: nothing can be mounted here, not even in a namespace of one's own");
        }
        found
    }

    /// Puts an empty file system of so many bytes in place of a directory, which is made if it is not there.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn mount(&self, at: &Path, bytes: usize) {
        if !self.inside(at).is_dir() {
            fs::create_dir_all(at).expect("a directory");
        }
        assert!(self.try_mount(at, bytes), "{} cannot be mounted", at.display());
    }

    fn try_mount(&self, at: &Path, bytes: usize) -> bool {
        let options = format!("size={bytes}");
        let arguments = ["mount", "-t", "tmpfs", "-o", &options, "tmpfs"].map(OsStr::new);
        let enter = self.enter();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(arguments).arg(at).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// What is to stand in front of a command that sees these disks.
    pub fn enter(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["nsenter".into(), "--mount".into()];
        if self.has_users {
            words.extend(["--user", "--preserve-credentials"].map(OsString::from));
        }
        words.extend(["--target".into(), self.keeper.id().to_string().into(), "--".into()]);
        words
    }

    /// Where this process finds what those find under that path.
    pub fn inside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// Writes until there is no room any more.
    ///
    /// # Panics
    /// If something else is wrong.
    #[track_caller]
    pub fn fill(&self, mounted: &Path) {
        let path = self.ballast(mounted);
        let mut ballast = File::options().create(true).append(true).open(path).expect("a file");
        for chunk in [1 << 16, 1 << 12, 1] {
            loop {
                match ballast.write(&vec![0; chunk]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    /// Makes room.
    ///
    /// # Panics
    /// If it was not filled.
    #[track_caller]
    pub fn make_room(&self, mounted: &Path) {
        fs::remove_file(self.ballast(mounted)).expect("it was filled");
    }

    fn ballast(&self, mounted: &Path) -> PathBuf {
        self.inside(mounted).join("ballast")
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        _ = self.keeper.kill();
        _ = self.keeper.wait();
    }
}
