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
    let hublet = env!("CARGO_BIN_EXE_hublet");
    let output = command.env("HUBLET", hublet).stdin(Stdio::null()).output().expect("it starts");
    let said = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    assert_eq!(said(&output.stdout), "done\n");
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
