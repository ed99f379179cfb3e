//! From a shader page and a dispatch's constants to WGSL: constants are written in front as `const` lines, and the page
//! itself is a template (loops unrolled, formulas put in) that sees the same names.

use std::fmt::Write;
use std::sync::OnceLock;

use minijinja::{Environment, UndefinedBehavior, Value};

use super::lower::{Const, Dispatch, FIRST_GROUP, LATE_BINDING, Late};
use super::pages::PAGES;

/// The pages; one is parsed when it is first wanted.
fn pages() -> &'static Environment<'static> {
    static ENVIRONMENT: OnceLock<Environment<'static>> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        // A WGSL page is no HTML.
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.add_function("div_up", |a: i64, b: i64| (a + b - 1) / b.max(1));
        // Whether position `at` of an input is read by some output below `block` through some of `taps` taps.
        env.add_function("needed", |at: i64, block: i64, stride: i64, taps: i64, dilation: i64| {
            (0..taps).any(|k| {
                let offset = at - k * dilation;
                offset >= 0 && offset % stride == 0 && offset / stride < block
            })
        });
        env.set_loader(|name| Ok(PAGES.iter().find(|page| page.0 == name).map(|page| page.1.to_owned())));
        env
    })
}

/// The declaration of `late`; empty without such constants.
fn late(dispatch: &Dispatch, place: Late) -> String {
    let late: Vec<(&str, u32)> = dispatch.named_late(place).collect();
    if late.is_empty() {
        return String::new();
    }
    let fields: Vec<String> = late.iter().map(|(name, _)| format!("{name}: u32")).collect();
    let value = match place {
        Late::Text => {
            let values: Vec<String> = late.iter().map(|(_, v)| format!("{v}u")).collect();
            format!("const late = Late({});", values.join(", "))
        }
        Late::Immediate => "var<immediate> late: Late;".to_owned(),
        Late::Uniform => format!("@group(0) @binding({LATE_BINDING}) var<uniform> late: Late;"),
    };
    format!("struct Late {{ {} }}\n{value}\n", fields.join(", "))
}

/// The WGSL of a dispatch, with every constant in it.
///
/// # Errors
/// The page does not exist or its template fails: the message names page and line.
pub fn wgsl(dispatch: &Dispatch) -> Result<String, String> {
    render(dispatch, Late::Text)
}

/// The WGSL of a dispatch that finds its late constants at `place`.
///
/// # Errors
/// As [`wgsl`].
pub fn render(dispatch: &Dispatch, place: Late) -> Result<String, String> {
    let mut text = late(dispatch, place);
    let mut variables: Vec<(&str, Value)> = Vec::with_capacity(dispatch.consts.len());
    let mut loose: Vec<&str> = Vec::new();
    for (name, value) in &dispatch.consts {
        let (line, value) = match value {
            Const::Loose(v) if place == Late::Uniform => {
                loose.push(name);
                (None, Value::from(*v))
            }
            Const::U(v) | Const::Loose(v) => (Some(("u32", format!("{v}u"))), Value::from(*v)),
            Const::I(v) => (Some(("i32", format!("i32({v})"))), Value::from(*v)),
            Const::Late(_) => continue,
            Const::F(v) if !v.is_finite() => return Err(format!("shaders/{}: {name} is {v} in f32", dispatch.shader)),
            Const::F(v) => (Some(("f32", format!("{v:?}f"))), Value::from(f64::from(*v))),
            Const::B(v) => (Some(("bool", v.to_string())), Value::from(*v)),
            Const::Text(v) => (None, Value::from(*v)),
            Const::Formula(v) => (None, Value::from(v.clone())),
        };
        if let Some((kind, literal)) = line {
            let _ = writeln!(text, "const {name}: {kind} = {literal};");
        }
        variables.push((name, value));
    }
    let mut page = pages()
        .get_template(dispatch.shader)
        .and_then(|t| t.render(Value::from_pairs(variables)))
        .map_err(|e| format!("shaders/{}: {e:#}", dispatch.shader))?;
    if !loose.is_empty() {
        page = read_late(&page, &loose);
    }
    if dispatch.consts.iter().any(|(name, _)| *name == FIRST_GROUP[0]) {
        let moved = moved(&page, dispatch.entry);
        let page = moved.ok_or_else(|| format!("shaders/{}: {} cannot be moved", dispatch.shader, dispatch.entry))?;
        text.push_str(&page);
    } else {
        text.push_str(&page);
    }
    Ok(text)
}

/// A page that reads the constants `names` as fields of `late`.
fn read_late(page: &str, names: &[&str]) -> String {
    let mut text = String::with_capacity(page.len() + 64);
    let mut rest = page;
    let of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    while let Some(start) = rest.find(of_name) {
        let word = &rest[start..];
        let word = &word[..word.find(|c| !of_name(c)).unwrap_or(word.len())];
        text.push_str(&rest[..start]);
        if names.contains(&word) {
            text.push_str("late.");
        }
        text.push_str(word);
        rest = &rest[start + word.len()..];
    }
    text.push_str(rest);
    text
}

/// A page whose entry point counts its workgroups from `late.FIRST_GROUP_X` and so on, so that a dispatch can be done in parts: the
/// parameter with its number gets another name, and its own one stands for the moved number. `None` where it takes no such parameter.
fn moved(page: &str, entry: &str) -> Option<String> {
    let head = page.find(&format!("fn {entry}("))?;
    let size = page[..head].rsplit_once("@workgroup_size(")?.1.split_once(')')?.0;
    let body = head + page[head..].find('{')? + 1;
    let (signature, rest) = (&page[head..body], &page[body..]);
    let [x, y, z] = FIRST_GROUP;
    let (builtin, first) = [
        ("@builtin(global_invocation_id) ", format!("vec3<u32>(late.{x} * u32({size}), late.{y}, late.{z})")),
        ("@builtin(workgroup_id) ", format!("vec3<u32>(late.{x}, late.{y}, late.{z})")),
    ]
    .into_iter()
    .find(|(builtin, _)| signature.contains(builtin))?;
    let name = signature.split_once(builtin)?.1.split_once(':')?.0;
    // Of two axes only the first is known to be counted in `size`.
    if size.contains(',') || !signature.contains(&format!("{builtin}{name}: vec3<u32>")) {
        return None;
    }
    let signature = signature.replacen(&format!("{builtin}{name}:"), &format!("{builtin}{name}_of_part:"), 1);
    Some(format!("{}{signature}\n    let {name} = {name}_of_part + {first};{rest}", &page[..head]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::lower::Arg;

    #[test]
    fn an_entry_point_is_moved_by_whole_workgroups() {
        let page = "@compute @workgroup_size(WG)\nfn forward(@builtin(global_invocation_id) id: vec3<u32>) {\n    y[id.x] = 1.0;\n}\n";
        let text = moved(page, "forward").unwrap();
        let first = "vec3<u32>(late.FIRST_GROUP_X * u32(WG), late.FIRST_GROUP_Y, late.FIRST_GROUP_Z)";
        assert!(
            text.contains("id_of_part: vec3<u32>) {\n") && text.contains(&format!("let id = id_of_part + {first};"))
        );
        assert!(text.ends_with("y[id.x] = 1.0;\n}\n") && moved(page, "backward").is_none());
        assert!(moved(&page.replace("(WG)", "(8, 8)"), "forward").is_none());
        let group = page.replace("global_invocation_id", "workgroup_id");
        assert!(moved(&group, "forward").unwrap().contains("id_of_part + vec3<u32>(late.FIRST_GROUP_X, late."));
        assert!(moved(&page.replace("global_invocation_id", "local_invocation_id"), "forward").is_none());
    }

    #[test]
    fn late_constants_are_in_the_text_only_where_they_must_be() {
        let of = |n| {
            let mut d = Dispatch::elementwise("copy.wgsl", "forward", 8, vec![Arg::Input(0), Arg::Output], Vec::new());
            d.consts.extend([("ROWS", Const::Late(n)), ("COLUMNS", Const::Late(3))]);
            d
        };
        assert_eq!(of(5).late(Late::Immediate), [5, 3]);
        assert_eq!(of(5).late(Late::Uniform), [64, 8, 5, 3]);
        for (place, words) in [
            (Late::Immediate, "struct Late { ROWS: u32, COLUMNS: u32 }\nvar<immediate> late: Late;"),
            (
                Late::Uniform,
                "struct Late { GRID_X: u32, COUNT: u32, ROWS: u32, COLUMNS: u32 }\n@group(0) @binding(64) var<uniform> late: Late;",
            ),
        ] {
            let text = render(&of(5), place).unwrap();
            assert_eq!(text, render(&of(6), place).unwrap());
            assert!(text.contains(words), "{text}");
            assert_eq!(text.contains("late.COUNT"), place == Late::Uniform, "{text}");
            assert_eq!(text.contains("const COUNT: u32 = 8u;"), place == Late::Immediate, "{text}");
        }
        assert!(wgsl(&of(5)).unwrap().contains("const late = Late(5u, 3u);"));
        let plain = Dispatch::elementwise("copy.wgsl", "forward", 8, vec![Arg::Input(0), Arg::Output], Vec::new());
        assert!(plain.late(Late::Immediate).is_empty() && !wgsl(&plain).unwrap().contains("Late"));
    }
}
