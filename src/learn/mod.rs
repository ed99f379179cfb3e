//! Lessons: what a convolution is and how it learns, in numbers small enough to follow by hand.
//!
//! Each lesson is a text in Markdown whose numbers the engine computes as it is asked for, with the ops that train. `radiograd learn`
//! prints it, and `docs/learn/` holds the same pages (a test compares them). Two lessons ask more of the reader's machine: the
//! ladder of kernels is timed on it ([`kernels`]), and a gradient is broken on it ([`break_it`]).

pub mod break_it;
mod convolution;
mod gradient;
mod grid;
pub mod kernels;
mod pooling;
mod weight;

use crate::check::CheckError;

/// A lesson.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// Its name on the command line, and of its page.
    pub name: &'static str,
    /// Its heading.
    pub title: &'static str,
    /// What one knows afterwards, in a line.
    pub what: &'static str,
    body: fn() -> Result<String, CheckError>,
}

/// All lessons, in the order in which they build on each other.
pub const LESSONS: [Lesson; 7] = [
    Lesson {
        name: "convolution",
        title: "What a convolution is",
        what: "a window, its weights, the products and their sum",
        body: convolution::window,
    },
    Lesson {
        name: "stride",
        title: "Stride and padding",
        what: "how large the output is, and what each of its pixels sees",
        body: convolution::stride,
    },
    Lesson {
        name: "pooling",
        title: "Pooling",
        what: "the largest pixel goes on, and the gradient goes back to it alone",
        body: pooling::pooling,
    },
    Lesson {
        name: "gradient",
        title: "The gradient of the input",
        what: "each gradient goes back through the weight by which the pixel came",
        body: gradient::input,
    },
    Lesson {
        name: "weights",
        title: "The gradient of the weights, and why it is the hard kernel",
        what: "one weight meets every output pixel of every image",
        body: weight::weight,
    },
    Lesson {
        name: "kernels",
        title: "The ladder of kernels",
        what: "the same convolution by each of its kernels, timed on your device",
        body: kernels::text,
    },
    Lesson {
        name: "break-it",
        title: "Break it",
        what: "flip a sign in a gradient, and watch the check name the op",
        body: break_it::text,
    },
];

impl Lesson {
    /// The lesson of a name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        LESSONS.into_iter().find(|l| l.name == name)
    }

    /// Its page in Markdown.
    ///
    /// # Errors
    /// The engine refuses one of its own examples: a fault of the program.
    pub fn page(&self) -> Result<String, CheckError> {
        let body = (self.body)()?;
        let at = LESSONS.iter().position(|l| l.name == self.name);
        let next = at.and_then(|at| LESSONS.get(at + 1));
        let next = next.map_or(String::new(), |l| format!("\nNext: `radiograd learn {}`, {}.\n", l.name, l.what));
        Ok(format!("# {}\n\n{}\n{next}", self.title, body.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_pages_are_text() {
        for lesson in LESSONS {
            assert_eq!(Lesson::find(lesson.name).unwrap().title, lesson.title);
            let page = lesson.page().unwrap();
            assert!(page.starts_with(&format!("# {}\n", lesson.title)) && page.ends_with('\n'));
            assert!(page.lines().all(|l| l.chars().count() <= 150), "{}", lesson.name);
        }
        assert!(Lesson::find("nothing").is_none());
    }
}
