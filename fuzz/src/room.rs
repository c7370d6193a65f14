//! Fuzzes paths of rooms: the room has a valid name, and a second reader finds the same one.

pub fn run(bytes: &[u8]) {
    let Ok(path) = std::str::from_utf8(bytes) else { return };
    let room = hublet::room_of(path);
    assert_eq!(room, expected(path), "{path:?}");
    if let Some(room) = room {
        // The same name with every byte encoded must give the same room.
        let encoded: String = room.bytes().map(|byte| format!("%{byte:02x}")).collect();
        assert_eq!(hublet::room_of(&format!("/ws/{encoded}")), Some(room));
    }
}

/// The room of a path, by splitting at percent signs.
fn expected(path: &str) -> Option<String> {
    let rest = ["/ws", "/sse", "/pub"].iter().find_map(|route| path.strip_prefix(route))?;
    if rest.is_empty() {
        return Some("main".to_owned());
    }
    let segment = rest.strip_prefix('/')?;
    if segment.contains('/') {
        return None;
    }
    let mut parts = segment.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let hex = part.get(..2)?;
        if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        name.push(u8::from_str_radix(hex, 16).ok()?);
        name.extend_from_slice(&part.as_bytes()[2..]);
    }
    let name = String::from_utf8(name).ok()?;
    let fits = !name.is_empty() && name.len() <= 128 && !name.chars().any(char::is_control);
    (fits && segment != "." && segment != ".." && name != "." && name != "..").then_some(name)
}
