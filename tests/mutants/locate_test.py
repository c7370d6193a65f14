"""What `locate.py` finds, does not find, and finds twice: `python3 -m unittest`, here."""

import pathlib
import tempfile
import unittest

from locate import Missing, file_of, items, replaced

QUEUE = '''
//! No item: fn push() { lost(); }
const MAX: usize = { let max = [1, 2]; max.len() };

pub struct Queue<const N: usize> {
    items: [u8; N],
}

impl<'a, F: Fn() -> u8, const N: usize> Drop for wire::Read<'a, F, N>
where
    F: Copy,
{
    fn drop(&mut self) {
        self.close('}', '\\'', "{ \\" {", r#"" } "#); // }
    }
}

impl<const N: usize> Queue<N> {
    fn push(
        &mut self,
        item: impl Into<u8>,
    ) -> Option<impl Sized + use<N>> {
        fn full(len: usize) -> bool {
            len == MAX
        }
        if self.open && full(self.len()) {
            return None;
        }
        self.items.store(
            item.into(),
            self.next, // The place.
        );
        self.open = true;
        self.open = true;
        Some(())
    }
}

impl Queue<0> {
    fn drop(self) {
        forget(self);
    }
}

trait Wake {
    fn wake(&self);
    fn wake_all(&self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    fn push() {
        self.open = true;
    }
}
'''


class Locate(unittest.TestCase):
    def missing(self, says, *arguments):
        with self.assertRaisesRegex(Missing, says):
            replaced(QUEUE, *arguments)

    def changed(self, *arguments):
        """The lines that a replacement adds."""
        before, after = QUEUE.splitlines(), replaced(QUEUE, *arguments).splitlines()
        return [line.strip() for line in after if line not in before]

    def test_every_item_has_its_path(self):
        expected = ["MAX", "Queue", "Read::drop", "Queue::push", "Queue::push::full", "Queue::drop"]
        expected += ["Wake", "Wake::wake", "Wake::wake_all", "tests::push"]
        self.assertEqual(sorted("::".join(item.path) for item in items(QUEUE)), sorted(expected))

    def test_an_item_ends_with_its_bracket(self):
        ends = {item.path: QUEUE[item.start : item.end] for item in items(QUEUE)}
        self.assertTrue(ends["Read", "drop"].endswith('r#"" } "#); // }\n    }'))
        self.assertEqual(ends[("MAX",)], "const MAX: usize = { let max = [1, 2]; max.len() };")

    def test_a_pattern_is_found_in_any_layout(self):
        one_line = "self.items.store(item.into(), self.next);"
        self.assertEqual(self.changed("push", one_line, "lose(item);"), ["lose(item);"])
        cut = "self . items\n.store( item.into( ),\n self.next , )"
        self.assertEqual(self.changed("Queue::push", cut, "lose(item)"), ["lose(item);"])

    def test_only_its_own_item_is_looked_at(self):
        self.assertEqual(self.changed("full", "len == MAX", "false"), ["false"])
        self.assertIn("let max = [1]; max", self.changed("MAX", "[1, 2]", "[1]")[0])
        self.missing("0 times", "wake_all", "len == MAX", "")

    def test_a_pattern_ends_with_a_word(self):
        self.missing("0 times", "push", "self.open = tru", "")
        self.missing("0 times", "push", "elf.items", "")
        self.missing("0 times", "push", "returnNone", "")

    def test_a_comment_is_not_code(self):
        self.missing("0 times", "push", "The place", "")

    def test_a_pattern_that_occurs_twice_is_refused(self):
        self.missing("2 times", "push", "self.open = true;", "")

    def test_an_item_that_is_gone_or_there_twice_is_refused(self):
        self.missing("0 items", "pop", "x", "")
        self.missing("0 items", "Stack::push", "x", "")
        self.missing("2 items", "drop", "forget(self)", "")
        self.assertEqual(self.changed("Queue::drop", "forget(self)", "drop(self)"), ["drop(self);"])

    def test_a_file_is_found_by_the_end_of_its_path(self):
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / "src"
            names = ["hub/queue.rs", "hub/tests/queue.rs", "hub/mod.rs", "serve/mod.rs", "lib.rs"]
            for name in names:
                path = root / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            for name, path in {
                "queue.rs": "hub/queue.rs",
                "tests/queue.rs": "hub/tests/queue.rs",
                "hub/mod.rs": "hub/mod.rs",
            }.items():
                self.assertEqual(file_of(root, name), root / path)
            for name, number in {"mod.rs": 2, "ueue.rs": 0, "b.rs": 0}.items():
                with self.assertRaisesRegex(Missing, f"^{number} files"):
                    file_of(root, name)


if __name__ == "__main__":
    unittest.main()
