//! The recipes of packages, with stand-ins for binaries of other processors. `.ci/run` makes real ones.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::Folder;
use crate::tools::{file, program};

/// Runs a program; returns what it prints.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let says = [output.stdout, output.stderr].concat();
    let says = String::from_utf8_lossy(&says).into_owned();
    assert!(output.status.success(), "{command:?}: {says}");
    says
}

/// The targets that the recipes know.
const TARGETS: [&str; 9] = [
    "x86_64-unknown-linux-musl",
    "i686-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "armv7-unknown-linux-musleabihf",
    "arm-unknown-linux-musleabihf",
    "armv5te-unknown-linux-musleabi",
    "riscv64gc-unknown-linux-musl",
    "mips-unknown-linux-musl",
    "mipsel-unknown-linux-musl",
];

/// A folder with binaries as `deploy/release` names them; each has the name of its target in it.
fn dist(folder: &Folder) -> PathBuf {
    let dist = folder.0.join("dist");
    fs::create_dir(&dist).expect("new");
    for target in TARGETS {
        let path = dist.join(format!("hublet-{}-{target}", env!("CARGO_PKG_VERSION")));
        fs::write(&path, target).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its owner");
    }
    dist
}

/// What the build system of OpenWrt has for a package, as far as ours needs it.
const RULES: &str = "\
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INCLUDE_DIR:=$(TOPDIR)
";

const PACKAGE: &str = "\
define BuildPackage
all:
\t$(call Build/Prepare)
\t$(call Package/$(1)/install,$(OUT))
endef
";

#[test]
fn openwrt_installs_the_binary_of_its_architecture_and_the_init_script() {
    let (Some(make), Some(_)) = (program("make"), program("bash")) else { return };
    let folder = Folder::new("openwrt");
    let dist = dist(&folder);
    fs::write(folder.0.join("rules.mk"), RULES).expect("written");
    fs::write(folder.0.join("package.mk"), PACKAGE).expect("written");
    // As a feed has it: by a link.
    let recipe = folder.0.join("Makefile");
    std::os::unix::fs::symlink(file("deploy/openwrt/Makefile"), &recipe).expect("a link");
    for (arch, subtype, target) in [
        ("mips", "24kc", "mips-unknown-linux-musl"),
        ("mipsel", "24kc", "mipsel-unknown-linux-musl"),
        ("aarch64", "", "aarch64-unknown-linux-musl"),
        ("arm", "neon-vfpv4", "armv7-unknown-linux-musleabihf"),
        ("arm", "", "armv5te-unknown-linux-musleabi"),
        ("riscv64", "", "riscv64gc-unknown-linux-musl"),
        ("i386", "", "i686-unknown-linux-musl"),
        ("x86_64", "", "x86_64-unknown-linux-musl"),
    ] {
        let out = folder.0.join(format!("{arch}{subtype}"));
        let set = |name: &str, value: &Path| format!("{name}={}", value.display());
        let mut command = Command::new(&make);
        command.arg("-f").arg(&recipe).args([
            set("TOPDIR", &folder.0),
            set("HUBLET_DIST", &dist),
            set("OUT", &out),
            format!("ARCH={arch}"),
            format!("CPU_SUBTYPE={subtype}"),
        ]);
        run(&mut command);
        let installed = fs::read_to_string(out.join("usr/bin/hublet")).expect("the binary");
        assert_eq!(installed, target, "{arch} {subtype}");
        let init = fs::read(out.join("etc/init.d/hublet")).expect("the init script");
        assert_eq!(init, fs::read(file("deploy/openwrt.init")).expect("ours"));
    }
    let text = fs::read_to_string(file("deploy/openwrt/Makefile")).expect("the recipe");
    assert!(text.contains(concat!("PKG_VERSION:=", env!("CARGO_PKG_VERSION"), "\n")));
}

#[test]
fn image_has_a_manifest_for_each_processor_that_a_checker_takes() {
    let Some(python) = program("python3") else { return };
    let folder = Folder::new("oci");
    let (dist, layout) = (dist(&folder), folder.0.join("layout"));
    run(Command::new(python).arg(file("deploy/oci")).arg(&layout).env("HUBLET_DIST", dist));
    let Some(skopeo) = program("skopeo") else { return };
    let image = format!("oci:{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
    let index = run(Command::new(&skopeo).args(["inspect", "--raw", &image]));
    for architecture in ["amd64", "386", "arm64", "arm", "riscv64"] {
        assert!(index.contains(&format!("\"architecture\": \"{architecture}\"")), "{index}");
    }
    // A copy reads every blob, and compares its digest.
    let copy = format!("oci:{}:copy", folder.0.join("copy").display());
    run(Command::new(&skopeo).args(["--insecure-policy", "copy", "--all", &image, &copy]));
    let config = run(Command::new(skopeo).args([
        "--override-arch=arm64",
        "--override-variant=v8",
        "inspect",
        "--config",
        &image,
    ]));
    for said in ["\"/hublet\"", "HUBLET_LISTEN=:8080", "65534:65534", "8080/tcp"] {
        assert!(config.contains(said), "{said} is not in {config}");
    }
}
