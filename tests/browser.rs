//! Tests the page and the client module in a browser. Each test is a story of `tests/browser/`,
//! which starts its own hubs and contains the assertions.

mod tools;

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One browser at a time: several are so slow on a small machine that tests time out.
static BROWSER: Mutex<()> = Mutex::new(());

const STORIES: &str = "tests/browser/stories.mjs";

fn story(name: &str) {
    let _one = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mut command) = tools::chromium(STORIES) {
        run(command.arg(name));
    }
}

#[track_caller]
fn run(command: &mut Command) {
    assert_eq!(said(command), "done\n");
}

/// What a program says that succeeds.
#[track_caller]
fn said(command: &mut Command) -> String {
    let hublet = env!("CARGO_BIN_EXE_hublet");
    let output = command.env("HUBLET", hublet).stdin(Stdio::null()).output().expect("it starts");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn two_tabs_chat() {
    story("two_tabs_chat");
}

#[test]
fn page_reconnects_after_a_restart() {
    story("page_reconnects_after_a_restart");
}

#[test]
fn page_shows_what_a_room_keeps_and_a_gap() {
    if tools::program("curl").is_some() {
        story("page_shows_what_a_room_keeps_and_a_gap");
    }
}

#[test]
fn events_with_positions_run_as_printed() {
    if tools::program("curl").is_some() {
        story("events_with_positions_run_as_printed");
    }
}

#[test]
fn the_module_resumes_by_itself() {
    if tools::program("curl").is_some() {
        story("the_module_resumes_by_itself");
    }
}

#[test]
fn event_source_gets_what_curl_publishes() {
    if tools::program("curl").is_some() {
        story("event_source_gets_what_curl_publishes");
    }
}

#[test]
fn tour_of_the_readme_runs_as_printed() {
    if tools::program("curl").is_some() {
        story("tour_of_the_readme_runs_as_printed");
    }
}

#[test]
fn the_events_of_the_documents_run_as_printed() {
    if tools::program("curl").is_some() {
        story("the_events_of_the_documents_run_as_printed");
    }
}

#[test]
fn event_source_closed_by_a_status_is_reopened_as_printed() {
    if tools::program("curl").is_some() {
        story("event_source_closed_by_a_status_is_reopened_as_printed");
    }
}

#[test]
fn the_module_of_the_readme_runs_as_printed() {
    story("the_module_of_the_readme_runs_as_printed");
}

#[test]
fn a_foreign_page_is_refused_on_every_route() {
    story("a_foreign_page_is_refused_on_every_route");
}

#[test]
fn dns_rebinding_is_refused() {
    story("dns_rebinding_is_refused");
}

#[test]
fn a_page_of_a_listed_origin_uses_the_client_module() {
    story("a_page_of_a_listed_origin_uses_the_client_module");
}

#[test]
fn a_copy_of_the_module_connects_to_an_absolute_url() {
    if tools::program("curl").is_some() {
        story("a_copy_of_the_module_connects_to_an_absolute_url");
    }
}

#[test]
fn a_token_that_ends_is_renewed() {
    if tools::program("curl").is_some() {
        story("a_token_that_ends_is_renewed");
    }
}

#[test]
fn a_silent_connection_is_noticed() {
    if tools::program("curl").is_some() {
        story("a_silent_connection_is_noticed");
    }
}

#[test]
fn events_are_opened_anew_after_a_status() {
    if tools::program("curl").is_some() {
        story("events_are_opened_anew_after_a_status");
    }
}

#[test]
fn page_works_with_the_keyboard() {
    story("page_works_with_the_keyboard");
}

#[test]
fn page_fits_a_phone() {
    story("page_fits_a_phone");
}

#[test]
fn page_is_accessible() {
    if tools::node_with("axe-core", STORIES).is_some() {
        story("page_is_accessible");
    }
}

#[test]
fn token_is_accepted_and_a_missing_one_is_reported() {
    if tools::program("curl").is_some() {
        story("token_is_accepted_and_a_missing_one_is_reported");
    }
}

#[test]
fn refused_member_list_is_reported() {
    story("refused_member_list_is_reported");
}

#[test]
fn a_flood_is_counted_and_the_page_stays_small() {
    story("a_flood_is_counted_and_the_page_stays_small");
}

#[test]
fn nothing_else_runs_in_the_page() {
    story("nothing_else_runs_in_the_page");
}

/// Without a browser: the test controls a fake WebSocket and a fake clock.
#[test]
fn client_module_reconnects_as_documented() {
    if let Some(mut command) = tools::node("tests/browser/client.mjs") {
        run(&mut command);
    }
}

#[test]
fn the_hub_serves_the_module_minified() {
    if let Some(mut command) = tools::node_with("terser", "tests/tools/minify.mjs") {
        let served = include_str!("../src/bin/hublet/hublet.min.js");
        assert_eq!(said(&mut command), served, "run npm run minify --prefix tests");
    }
}

/// A program that uses the module compiles, and what its types forbid does not.
#[test]
fn the_types_of_the_module_say_how_it_is_used() {
    let tsc = "tests/node_modules/typescript/bin/tsc";
    if let Some(mut command) = tools::node_with("typescript", tsc) {
        command.args(["--noEmit", "--strict", "--target", "es2022", "--module", "esnext"]);
        command.args(["--moduleResolution", "bundler"]).arg(tools::file("tests/browser/types.ts"));
        assert_eq!(said(&mut command), "");
    }
}

/// The script that makes the picture of the README still makes one, and it is small.
#[test]
fn the_picture_of_the_page_is_made_by_its_script() {
    const BYTES_MAX: u64 = 100_000;
    const PNG: &[u8] = b"\x89PNG\r\n";
    let _one = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    if let Some(mut command) = tools::chromium("tests/tools/screenshot.mjs") {
        let hublet = env!("CARGO_BIN_EXE_hublet");
        let output = command.arg(&path).env("HUBLET", hublet).stdin(Stdio::null()).output();
        let output = output.expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(std::fs::read(&path).expect("made").starts_with(PNG));
    }
    let shown = std::fs::read(tools::file("docs/page.png")).expect("a file of the repository");
    assert!(shown.starts_with(PNG) && (shown.len() as u64) < BYTES_MAX, "{}", shown.len());
}
