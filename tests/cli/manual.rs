//! The man page and the completions, which `deploy/pages.py` makes from `--help all`.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::{Folder, HUBLET};
use crate::tools::{file, program};

/// Writes the pages into a folder.
fn pages(folder: &Folder) -> Option<()> {
    let python = program("python3")?;
    let output = run(Command::new(python).arg(file("deploy/pages.py")).arg(&folder.0).arg(HUBLET));
    succeeded(&output);
    Some(())
}

fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it starts")
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let says = [output.stdout.clone(), output.stderr.clone()].concat();
    let says = String::from_utf8_lossy(&says).into_owned();
    assert!(output.status.success(), "{says}");
    says
}

/// The flags that `--help all` names.
fn flags() -> Vec<String> {
    let help = succeeded(&run(Command::new(HUBLET).args(["--help", "all"])));
    let flags = help.lines().filter_map(|line| line.strip_prefix("  --"));
    let flags = flags.filter_map(|line| Some(line.split_whitespace().next()?.to_owned()));
    let flags: Vec<_> = flags.collect();
    assert!(flags.len() > 40, "{flags:?}");
    flags
}

#[test]
fn man_page_and_completions_have_every_flag() {
    let folder = Folder::new("pages");
    let Some(()) = pages(&folder) else { return };
    let read = |name| fs::read_to_string(folder.0.join(name)).expect("a page");
    let (man, bash) = (read("hublet.1"), read("hublet.bash"));
    let (zsh, fish) = (read("_hublet"), read("hublet.fish"));
    for flag in flags() {
        let escaped = flag.replace('-', "\\-");
        assert!(man.contains(&format!("\n.TP\n\\fB\\-\\-{escaped}\\fR")), "man: {flag}");
        assert!(
            bash.contains(&format!("--{flag} ")) || bash.contains(&format!("--{flag}\"")),
            "{flag}"
        );
        assert!(zsh.contains(&format!("--{flag}[")), "zsh: {flag}");
        assert!(fish.contains(&format!(" -l {flag} ")), "fish: {flag}");
    }
}

#[test]
fn man_page_is_one_for_mandoc() {
    let Some(mandoc) = program("mandoc") else { return };
    let folder = Folder::new("man");
    let Some(()) = pages(&folder) else { return };
    let page = folder.0.join("hublet.1");
    succeeded(&run(Command::new(&mandoc).args(["-T", "lint", "-W", "error"]).arg(&page)));
    let shown = succeeded(&run(Command::new(mandoc).args(["-T", "utf8"]).arg(page)));
    assert!(shown.contains("HUBLET_MAX_MEMORY"), "{shown}");
}

#[test]
fn shells_complete_flags_and_their_values() {
    let folder = Folder::new("shells");
    let Some(()) = pages(&folder) else { return };
    let shell = |name: &str, script: &str| {
        let mut command = Command::new(program(name)?);
        Some(succeeded(&run(command.args(["-c", script]).current_dir(&folder.0))))
    };
    let complete = "source ./hublet.bash; COMP_WORDS=(hublet $1 $2); COMP_CWORD=${#COMP_WORDS[@]}-1; \
                    _hublet; echo ${COMPREPLY[@]}";
    let bash = |words| shell("bash", &format!("set -- {words}; {complete}"));
    let Some(said) = bash("--max-m") else { return };
    assert_eq!(said.trim(), "--max-message --max-memory");
    assert_eq!(bash("--log d").as_deref().map(str::trim), Some("debug"));
    let fish = "source ./hublet.fish; complete -C 'hublet --max-m'; complete -C 'hublet --log d'";
    if let Some(said) = shell("fish", fish) {
        for word in ["--max-message", "--max-memory", "debug"] {
            assert!(said.contains(word), "{said}");
        }
    }
    // Only its syntax: it completes in a terminal.
    shell("zsh", "zsh -n ./_hublet");
}
