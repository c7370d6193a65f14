//! The path of a Unix socket, its mode and its group.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
#[cfg(unix)]
use std::time::Duration;

/// The permission bits of a file.
const MODE_MAX: u32 = 0o777;

/// The bits of the owner.
#[cfg(unix)]
const OWNER: u32 = 0o700;

/// The groups of the machine, a line each. A static binary has no other way to a name: musl reads
/// this file too.
const GROUPS: &str = "/etc/group";

/// What follows `unix:` in `--listen`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixAddress {
    pub(crate) path: PathBuf,
    /// The permissions of the socket's file; without them the umask decides.
    mode: Option<u32>,
    /// The number of the group that gets the file.
    group: Option<u32>,
}

/// What follows the path, after a comma each.
const OPTIONS: &str = "unix: and a path, then perhaps ,mode=0660 and ,group=NAME";

impl UnixAddress {
    /// Whether a part of a list belongs to the address before it: the list has commas too.
    pub(crate) fn is_option(part: &str) -> bool {
        part.starts_with("mode=") || part.starts_with("group=")
    }

    /// Connects to the process that listens there. It may take so long to accept, and so may each read
    /// and write: then the error is [`WouldBlock`](io::ErrorKind::WouldBlock).
    #[cfg(unix)]
    pub(crate) fn connect(&self, patience: Duration) -> io::Result<UnixStream> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, connect, socket};

        let stream = UnixStream::from(socket(AddressFamily::UNIX, SocketType::STREAM, None)?);
        // Connecting to a socket whose backlog is full counts as a write.
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        connect(&stream, &SocketAddrUnix::new(&self.path)?)?;
        Ok(stream)
    }

    /// Makes the socket with its mode. No client can connect that the mode excludes, not even
    /// before the file has its group: until then only its owner can.
    #[cfg(unix)]
    pub(crate) fn bind(&self) -> io::Result<UnixListener> {
        use rustix::fs::Mode;
        use rustix::process::umask;

        let Some(mode) = self.mode else { return UnixListener::bind(&self.path) };
        let first = if self.group.is_some() { mode & OWNER } else { mode };
        // The umask is the process's. No other thread makes a file: the hub writes none.
        let before = umask(Mode::from_raw_mode((MODE_MAX & !first) as _));
        let listener = UnixListener::bind(&self.path);
        umask(before);
        listener
    }

    /// Gives the file of the socket its group, and then the rest of its mode.
    #[cfg(unix)]
    pub(crate) fn hand_to_group(&self) -> io::Result<()> {
        use std::fs::{Permissions, set_permissions};
        use std::os::unix::fs::{PermissionsExt as _, chown};

        if self.group.is_none() {
            return Ok(());
        }
        chown(&self.path, None, self.group)?;
        match self.mode {
            Some(mode) => set_permissions(&self.path, Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

impl FromStr for UnixAddress {
    /// What is allowed instead.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let path = parts.next().filter(|path| !path.is_empty()).ok_or(OPTIONS)?;
        let mut address = Self { path: path.into(), mode: None, group: None };
        for part in parts {
            match part.split_once('=') {
                Some(("mode", digits)) => address.mode = Some(mode(digits)?),
                Some(("group", name)) => address.group = Some(group(name, Path::new(GROUPS))?),
                _ => return Err(OPTIONS.to_owned()),
            }
        }
        Ok(address)
    }
}

/// Reads permissions as `chmod` takes them.
fn mode(digits: &str) -> Result<u32, String> {
    // No sign before them, which the number would take.
    let octal = digits.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|mode| octal && *mode <= MODE_MAX && (3..=4).contains(&digits.len()))
        .ok_or_else(|| "mode= with three octal digits, like mode=0660".to_owned())
}

/// Finds the number of a group by its name; a number stands for itself.
fn group(name: &str, groups: &Path) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string(groups).unwrap_or_default();
    let number = groups.lines().find_map(|line| {
        // NAME:PASSWORD:NUMBER:MEMBERS
        let mut fields = line.split(':');
        if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None }
    });
    number.ok_or_else(|| format!("group= with a group of {GROUPS} or its number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_has_three_octal_digits_and_perhaps_a_zero_before_them() {
        for (digits, read) in
            [("0660", Some(0o660)), ("600", Some(0o600)), ("777", Some(0o777)), ("0000", Some(0))]
        {
            assert_eq!(mode(digits).ok(), read, "{digits}");
        }
        for digits in ["", "66", "00660", "1660", "0680", "rw", "+66", "-660", "0o660"] {
            assert!(mode(digits).is_err(), "{digits}");
        }
    }

    #[test]
    fn a_group_is_a_number_or_a_name_of_the_machine() {
        let file = std::env::temp_dir().join(format!("hublet-groups-{}", std::process::id()));
        std::fs::write(&file, "root:x:0:\nwww:x:8:a\nwww-data:x:33:www-data,hub\nbad:x:\n")
            .expect("a file");
        let found =
            ["www-data", "www", "33", "www-dat", "bad", ""].map(|name| group(name, &file).ok());
        assert_eq!(found, [Some(33), Some(8), Some(33), None, None, None]);
        std::fs::remove_file(&file).expect("it is there");
        assert!(group("www-data", &file).is_err(), "no file has no names");
    }
    #[cfg(unix)]
    #[test]
    fn until_the_file_has_its_group_only_the_owner_can_connect() {
        use std::os::unix::fs::MetadataExt as _;

        let own = rustix::process::getegid().as_raw();
        let path = std::env::temp_dir().join(format!("hublet-own-{}", std::process::id()));
        let text = format!("{},mode=0660,group={own}", path.display());
        let address: UnixAddress = text.parse().expect("an address");
        let mode = || std::fs::metadata(&path).expect("it is there").mode() & 0o777;
        let _listener = address.bind().expect("a free path");
        assert_eq!(mode(), 0o600);
        address.hand_to_group().expect("its own group");
        assert_eq!(mode(), 0o660);
        std::fs::remove_file(&path).expect("it is there");
    }
}
