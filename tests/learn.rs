//! The lessons: pages in `docs/learn/` are what the program says, and the command finds lessons and refuses the rest.

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use lab::Lab;
use program::text;
use radiograd::learn::LESSONS;

#[test]
fn the_pages_are_what_the_program_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/learn");
    for lesson in LESSONS {
        let kept = fs::read_to_string(folder.join(format!("{}.md", lesson.name))).unwrap_or_default();
        assert_eq!(kept, lesson.page().unwrap(), "write them anew: radiograd learn --out docs/learn");
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), LESSONS.len());
}

#[test]
fn the_command_lists_lessons_opens_them_and_breaks_ops() {
    let lab = Lab::new();
    let said = |args: &[&str]| {
        let out = lab.output(args, &[]);
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let list = said(&["learn"]);
    assert!(LESSONS.iter().all(|l| list.contains(l.name)));
    assert!(said(&["learn", "convolution"]).contains("not a medical device"));
    let broken = said(&["learn", "break-it", "--flip", "relu"]);
    assert!(broken.contains("The check names relu."), "{broken}");
    let ladder = said(&["learn", "kernels", "--device", "cpu"]);
    assert!(ladder.contains("| weight gradient | cpu"), "{ladder}");
    assert_eq!(ladder.contains("The CPU has one kernel"), !radiograd::gpu::list().is_empty(), "{ladder}");
    lab.fails(&["learn", "convolutoin"], &["no such lesson", "did you mean convolution?"]);
    lab.fails(&["learn", "break-it", "--flip", "nothing"], &["--flip nothing"]);
    lab.fails(&["learn", "pooling", "--flip", "relu"], &["break-it"]);
}
