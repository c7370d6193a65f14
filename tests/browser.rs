//! The page and its client module, in the browser that people use. Each test is a story of
//! `tests/browser/`, which starts hubs of its own and judges what it sees.

mod tools;

use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// One browser at a time: a few at once are slow enough on a small machine to look broken.
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
fn a_restart_is_survived() {
    story("a_restart_is_survived");
}

#[test]
fn an_event_source_hears_what_curl_says() {
    if tools::program("curl").is_some() {
        story("an_event_source_hears_what_curl_says");
    }
}

#[test]
fn the_tour_of_the_readme_prints_what_it_says() {
    if tools::program("curl").is_some() {
        story("the_tour_of_the_readme_prints_what_it_says");
    }
}

#[test]
fn the_events_of_the_documents_run_as_printed() {
    if tools::program("curl").is_some() {
        story("the_events_of_the_documents_run_as_printed");
    }
}

#[test]
fn an_event_source_that_a_status_has_closed_is_opened_anew_as_printed() {
    if tools::program("curl").is_some() {
        story("an_event_source_that_a_status_has_closed_is_opened_anew_as_printed");
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
fn a_name_that_leads_here_is_refused() {
    story("a_name_that_leads_here_is_refused");
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
fn the_keyboard_is_enough() {
    story("the_keyboard_is_enough");
}

#[test]
fn a_phone_is_wide_enough() {
    story("a_phone_is_wide_enough");
}

#[test]
fn everybody_can_use_it() {
    if tools::node_with("axe-core", STORIES).is_some() {
        story("everybody_can_use_it");
    }
}

#[test]
fn a_token_lets_in_and_its_want_is_told() {
    if tools::program("curl").is_some() {
        story("a_token_lets_in_and_its_want_is_told");
    }
}

#[test]
fn who_may_not_ask_who_is_here_is_told_so() {
    story("who_may_not_ask_who_is_here_is_told_so");
}

#[test]
fn a_flood_is_counted_and_the_page_stays_small() {
    story("a_flood_is_counted_and_the_page_stays_small");
}

#[test]
fn nothing_else_runs_in_the_page() {
    story("nothing_else_runs_in_the_page");
}

/// Without a browser: a WebSocket and a clock that the test holds in its hand.
#[test]
fn the_client_module_comes_back_as_it_is_told() {
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
