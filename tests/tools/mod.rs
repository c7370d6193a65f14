//! Programs that some tests need. `.ci/tools` installs them.

#![allow(dead_code, reason = "no test needs every tool")]

use std::env;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Returns `found`. If it is `None`, prints that this test is skipped, or fails if
/// `REQUIRE_TEST_TOOLS` is set. With `NO_TEST_TOOLS` set no tool is used.
#[track_caller]
pub(crate) fn tool<T>(name: &str, found: Option<T>) -> Option<T> {
    let found = found.filter(|_| env::var_os("NO_TEST_TOOLS").is_none());
    if found.is_none() {
        assert!(env::var_os("REQUIRE_TEST_TOOLS").is_none(), "{name} is not installed");
        // The harness names the thread of a test after it. `.ci/test` counts these lines.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        let line = format!("skipped: {test}: {name} is not installed\n");
        // Not with `eprintln!`: the test harness hides its output.
        stderr().write_all(line.as_bytes()).expect("standard error is open");
    }
    found
}

/// A file of the repository.
pub(crate) fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program by its name.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    // Debian installs servers in folders that are not in the PATH of ordinary users.
    let hidden = Path::new("/usr/sbin").join(name);
    tool(name, which(Path::new(name)).or_else(|| hidden.is_file().then_some(hidden)))
}

/// A program that answers `--version`, and its answer.
fn installed(program: impl AsRef<Path>) -> Option<(PathBuf, String)> {
    let program = program.as_ref();
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let version = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| (program.to_owned(), version))
}

/// The library that gives a program another time, as its environment says.
pub(crate) fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut paths = folders.map(|folder| folder.path().join("faketime/libfaketime.so.1"));
    tool("libfaketime", paths.find(|path| path.is_file()))
}

/// Node.js for a script of `tests/`, with its built-in WebSocket switched on.
pub(crate) fn node(script: &str) -> Option<Command> {
    let (node, version) = tool("node", installed("node"))?;
    let major = version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok()?;
    let mut command = Command::new(node);
    if major < 22 {
        command.args(["--experimental-websocket", "--no-warnings"]);
    }
    command.arg(file(script));
    Some(command)
}

/// Node.js with a package that `npm ci --prefix tests` installs.
pub(crate) fn node_with(package: &str, script: &str) -> Option<Command> {
    let installed = file("tests/node_modules").join(package).is_dir();
    tool(&format!("the npm package {package}"), installed.then_some(()))?;
    node(script)
}

/// Node.js with what `tests/tools/chromium.mjs` needs to start a headless Chromium.
pub(crate) fn chromium(script: &str) -> Option<Command> {
    let path = env::var_os("CHROMIUM").map(PathBuf::from);
    let names = path
        .into_iter()
        .chain(["chromium", "chromium-browser", "google-chrome"].map(PathBuf::from));
    let (chromium, _) = tool("chromium", names.into_iter().find_map(installed))?;
    let mut command = node_with("playwright-core", script)?;
    command.env("CHROMIUM", which(&chromium)?);
    Some(command)
}

/// Node.js with what `tests/tools/firefox.mjs` needs to start a headless Firefox.
pub(crate) fn firefox(script: &str) -> Option<Command> {
    let path = env::var_os("FIREFOX").map(PathBuf::from);
    let names = path.into_iter().chain(["firefox", "firefox-esr"].map(PathBuf::from));
    let (firefox, _) = tool("firefox", names.into_iter().find_map(installed))?;
    let mut command = node(script)?;
    command.env("FIREFOX", which(&firefox)?);
    Some(command)
}

/// Python with the packages of `tests/interop/requirements.txt`, in the environment that `.ci/run`
/// makes in the target folder.
pub(crate) fn python(script: &str) -> Option<Command> {
    let python = file("target/test-python/bin/python");
    let found = installed(python);
    let (python, _) = tool("target/test-python", found)?;
    let mut command = Command::new(python);
    command.arg(file(script));
    Some(command)
}

/// The full path of a program, found as by a shell.
fn which(program: &Path) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| path.is_file())
}
