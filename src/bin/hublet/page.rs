//! The page at `/`, and the client module that it uses, which any page may import.

use hublet::Page;

/// What browsers are told with everything: to take the type as it is told, and to ask again, since
/// another version of the hub has another page.
const NOSNIFF: (&str, &str) = ("X-Content-Type-Options", "nosniff");
const NO_CACHE: (&str, &str) = ("Cache-Control", "no-cache");

/// The digests that the page's policy allows: of its own script and style, and nothing else that
/// stands in it. A test says what they have to be.
macro_rules! policy {
    () => {
        concat!(
            "default-src 'none'; connect-src 'self'{sockets}; img-src data:; script-src 'self' 'sha256-",
            "7s+KB4CrlIS7RkbCTS9rEQ526z2qNjqRrx2Hbw/iliI=",
            "'; style-src 'sha256-",
            "ZWls681kCEk67lBT9mBWa/caBrLKe6bUzRgXcSUSwiw=",
            "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        )
    };
}

pub(crate) const PAGES: [Page; 2] = [
    Page {
        path: "/",
        content_type: "text/html; charset=utf-8",
        headers: &[
            ("Content-Security-Policy", policy!()),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            NOSNIFF,
            NO_CACHE,
        ],
        body: include_str!("page.html"),
    },
    Page {
        path: "/hublet.js",
        content_type: "text/javascript; charset=utf-8",
        headers: &[
            ("Access-Control-Allow-Origin", "*"),
            ("Cross-Origin-Resource-Policy", "cross-origin"),
            NOSNIFF,
            NO_CACHE,
        ],
        body: include_str!("hublet.min.js"),
    },
];

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding as _};
    use sha2::{Digest, Sha256};

    use super::*;

    /// The one element of a name, and what stands in it.
    fn inline(name: &str) -> &'static str {
        let begin = format!("<{name}");
        let mut parts = PAGES[0].body.split(&begin);
        let element = parts.nth(1).expect("there is one");
        assert_eq!(parts.next(), None, "there is one {name}");
        let (_, rest) = element.split_once('>').expect("a tag");
        rest.split_once(&format!("</{name}>")).expect("an end").0
    }

    #[test]
    fn the_policy_allows_what_stands_in_the_page_and_nothing_else() {
        for (directive, element) in [("script-src 'self'", "script"), ("style-src", "style")] {
            let digest = Base64::encode_string(&Sha256::digest(inline(element)));
            let allowed = format!("{directive} 'sha256-{digest}';");
            assert!(policy!().contains(&allowed), "page.rs must say {digest} for its {element}");
        }
        for unsafe_word in ["style=", "onclick=", "onload=", "innerHTML", "http://", "https://"] {
            let count = PAGES[0].body.matches(unsafe_word).count();
            // The namespace of the icon is a name and is not fetched.
            assert_eq!(count, usize::from(unsafe_word == "http://"), "{unsafe_word}");
        }
    }

    #[test]
    fn the_policy_names_the_sockets() {
        assert!(policy!().contains(&format!("connect-src 'self'{};", Page::SOCKETS)));
    }

    #[test]
    fn both_are_as_small_as_they_say() {
        assert!(PAGES[0].body.len() <= 11_600, "{}", PAGES[0].body.len());
        assert!(PAGES[1].body.len() < 2_048, "{}", PAGES[1].body.len());
    }
}
