//! A kernel from outside the crate: WGSL that a person wrote against the bindings and constants of an op's plain kernel.
//!
//! The text is not trusted. It is parsed and looked at before a driver sees it, compiled with all run-time checks, bound to
//! buffers of exactly its tensors' sizes, and waited for with a watchdog.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use wgpu::naga;

use super::device::Gpu;
use super::lower::{Arg, Const, MAX_GROUPS};
use super::memory::{ReadBack, bytes_of, storage, tensor_of, words_of};
use super::raw::{Call, Slot, pipeline};
use crate::exec::ExecError;
use crate::ops::{LowerCx, Op, PLAIN};
use crate::shape::Spec;
use crate::tensor::Tensor;

/// Longest wait for one run.
const WATCHDOG: Duration = Duration::from_secs(60);
/// The word that outputs start with: a NaN, so that an element that nobody writes is seen.
const UNWRITTEN: u32 = 0x7fc0_dead;

/// What a kernel from outside is told: the constants and bindings of the plain kernel at some shapes.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// Written behind the file as `const` lines.
    pub consts: Vec<(&'static str, Const)>,
    /// Binding `i` of group 0 is `args[i]`: inputs and the output.
    pub args: Vec<Arg>,
    /// The plain kernel's entry point.
    pub entry: &'static str,
    /// The plain kernel's workgroups of 64: one invocation an element of the output.
    pub groups: [u32; 3],
}

/// Text that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeignError {
    /// The compiler refuses it.
    #[error("{file}:{line}:{column}: {message}; the line is `{excerpt}`")]
    Wgsl {
        /// The file.
        file: String,
        /// Line of the file, from 1.
        line: u32,
        /// Column, from 1.
        column: u32,
        /// What the compiler says.
        message: String,
        /// The line.
        excerpt: String,
    },
    /// It is valid, but no kernel of that op.
    #[error("{file}: {what}")]
    Kernel {
        /// The file.
        file: String,
        /// What is wrong and what to do.
        what: String,
    },
}

/// Text that passed all checks that need no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    text: String,
    entry: String,
    groups: [u32; 3],
    /// False where the file says `const SUPPORTED = false` at these shapes.
    pub supported: bool,
}

impl Contract {
    /// The contract of an op at some shapes; `None` where the plain kernel is more than one kernel, or changes variables.
    #[must_use]
    pub fn of(op: &dyn Op, cx: &LowerCx) -> Option<Self> {
        let lowering = op.lower(&LowerCx { variant: PLAIN, ..cx.clone() });
        let (last, first) = (lowering.dispatches.last()?, lowering.dispatches.first()?);
        let same = lowering.dispatches.iter().all(|d| (d.entry, &d.args) == (first.entry, &first.args));
        let tensors = first.args.iter().all(|a| matches!(a, Arg::Input(_) | Arg::Output));
        if !same || !tensors {
            return None;
        }
        // A series of dispatches shares one loop; a kernel from outside runs the whole of it.
        let whole = |(name, value): &(&'static str, Const)| {
            if *name == "FIRST" { (*name, Const::U(0)) } else { (*name, value.clone()) }
        };
        let consts = last.consts.iter().map(whole).collect();
        Some(Self { consts, args: first.args.clone(), entry: first.entry, groups: first.groups })
    }

    /// The constants as WGSL.
    fn lines(&self) -> String {
        let line = |(name, value): &(&str, Const)| match value {
            Const::U(v) | Const::Late(v) | Const::Loose(v) => format!("const {name}: u32 = {v}u;\n"),
            Const::I(v) => format!("const {name}: i32 = i32({v});\n"),
            Const::F(v) => format!("const {name}: f32 = {v:?}f;\n"),
            Const::B(v) => format!("const {name}: bool = {v};\n"),
            Const::Formula(_) | Const::Text(_) => String::new(),
        };
        self.consts.iter().map(line).collect()
    }

    /// What is bound, in words: `0 input 0, 1 input 1, 2 the output`.
    #[must_use]
    pub fn bindings(&self) -> String {
        let name = |(i, arg): (usize, &Arg)| match arg {
            Arg::Input(k) => format!("{i} input {k}"),
            _ => format!("{i} the output"),
        };
        self.args.iter().enumerate().map(name).collect::<Vec<_>>().join(", ")
    }
}

/// Parses a text, takes what it says about itself, and compares what it uses with what is bound. The constants go behind the
/// text, so that lines and columns are the file's own.
///
/// # Errors
/// The text is no valid WGSL, or no kernel of these bindings.
pub fn check(file: &str, text: &str, contract: &Contract) -> Result<Checked, ForeignError> {
    let kernel = |what: String| ForeignError::Kernel { file: file.to_owned(), what };
    let whole = format!("{text}\n{}", contract.lines());
    // The parser is not ours, and its faults must not end the program.
    let parsed = catch_unwind(AssertUnwindSafe(|| parse(file, text, &whole, contract)));
    let (module, info) = parsed.unwrap_or_else(|_| Err(kernel("the WGSL compiler itself failed on it".to_owned())))?;
    let supported = constant(&module, "SUPPORTED").is_none_or(|v| v != naga::Literal::Bool(false));

    let compute = |e: &&naga::EntryPoint| e.stage == naga::ShaderStage::Compute;
    let entries: Vec<&naga::EntryPoint> = module.entry_points.iter().filter(compute).collect();
    let entry = match entries[..] {
        [one] => one,
        _ => entries.iter().find(|e| e.name == contract.entry).copied().ok_or_else(|| {
            let names: Vec<&str> = entries.iter().map(|e| e.name.as_str()).collect();
            let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let what = format!("needs one @compute entry point, or one called {}; it has {found}", contract.entry);
            kernel(what)
        })?,
    };

    let index = module.entry_points.iter().position(|e| std::ptr::eq(e, entry)).unwrap_or_default();
    let uses = info.get_entry_point(index);
    let mut output = false;
    for (_, v) in module.global_variables.iter().filter(|(handle, _)| !uses[*handle].is_empty()) {
        let Some(binding) = &v.binding else { continue };
        let name = v.name.as_deref().unwrap_or("a variable");
        let bound = contract.args.get(binding.binding as usize).filter(|_| binding.group == 0);
        let Some(arg) = bound else {
            let (group, binding) = (binding.group, binding.binding);
            let all = contract.bindings();
            return Err(kernel(format!("{name} is at @group({group}) @binding({binding}), but group 0 has {all}")));
        };
        let naga::AddressSpace::Storage { access } = v.space else {
            return Err(kernel(format!("{name} must be var<storage, ...>: that is what is bound")));
        };
        let written = access.contains(naga::StorageAccess::STORE);
        if written && matches!(arg, Arg::Input(_)) {
            let binding = binding.binding;
            return Err(kernel(format!("{name} at @binding({binding}) is an input: declare it var<storage, read>")));
        }
        output |= written;
    }
    if !output {
        let at = contract.args.iter().position(|a| *a == Arg::Output).unwrap_or_default();
        let entry = &entry.name;
        let what = format!(
            "entry point {entry} writes nothing: the output is @group(0) @binding({at}), var<storage, read_write>; all bindings: {}",
            contract.bindings()
        );
        return Err(kernel(what));
    }

    let given = ["GROUPS_X", "GROUPS_Y", "GROUPS_Z"].map(|name| (name, constant(&module, name)));
    // A number without a type is none of the parsed module's constants, and must not count as absent.
    let declared = |name: &str| {
        text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
            let words: Vec<&str> = words.collect();
            words.windows(2).any(|w| w[0] == "const" && w[1] == name)
        })
    };
    if let Some(untyped) = given.iter().find(|g| g.1.is_none() && declared(g.0)) {
        let name = untyped.0;
        return Err(kernel(format!("{name} has no type: write const {name}: u32 = ...")));
    }
    let mut groups = contract.groups;
    if given.iter().any(|g| g.1.is_some()) {
        for (axis, (name, value)) in given.into_iter().enumerate() {
            let number = match value {
                None => Some(1),
                Some(naga::Literal::U32(v)) => Some(i64::from(v)),
                Some(naga::Literal::I32(v)) => Some(i64::from(v)),
                Some(_) => None,
            };
            let fits = number.and_then(|v| u32::try_from(v).ok()).filter(|v| (1..=MAX_GROUPS).contains(v));
            groups[axis] = fits.ok_or_else(|| {
                let value = number.map_or_else(|| "no whole number".to_owned(), |v| v.to_string());
                kernel(format!("{name} is {value}: give a number of workgroups from 1 to {MAX_GROUPS}"))
            })?;
        }
    } else if entry.workgroup_size != [64, 1, 1] {
        let [x, y, z] = entry.workgroup_size;
        return Err(kernel(format!(
            "without const GROUPS_X each invocation takes one element, in workgroups of WG = 64, but {} has {x}x{y}x{z}",
            entry.name
        )));
    }
    let entry = entry.name.clone();
    Ok(Checked { text: whole, entry, groups, supported })
}

/// The value of a module constant.
fn constant(module: &naga::Module, name: &str) -> Option<naga::Literal> {
    let (_, constant) = module.constants.iter().find(|(_, c)| c.name.as_deref() == Some(name))?;
    match module.global_expressions[constant.init] {
        naga::Expression::Literal(literal) => Some(literal),
        _ => None,
    }
}

type Parsed = (naga::Module, naga::valid::ModuleInfo);

fn parse(file: &str, text: &str, whole: &str, contract: &Contract) -> Result<Parsed, ForeignError> {
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    let lines = text.lines().count().max(1);
    let error = |message: String, mut places: Vec<naga::SourceLocation>| {
        // Where a name of ours is taken, both places are named; theirs is the one to change.
        places.sort_by_key(|p| p.line_number as usize > lines);
        match places.first().filter(|p| p.line_number as usize <= lines) {
            Some(p) => ForeignError::Wgsl {
                file: file.to_owned(),
                line: p.line_number,
                column: p.line_position,
                message,
                excerpt: text.lines().nth(p.line_number as usize - 1).unwrap_or_default().trim().to_owned(),
            },
            None => {
                let names: Vec<&str> = contract.consts.iter().map(|c| c.0).collect();
                let what = format!("{message}; the bench adds the constants {}", names.join(", "));
                ForeignError::Kernel { file: file.to_owned(), what }
            }
        }
    };
    let module = naga::front::wgsl::parse_str(whole).map_err(|e| {
        let places = e.labels().filter(|l| l.0.is_defined()).map(|l| l.0.location(whole)).collect();
        let mut message = e.message().to_owned();
        // The first label says what stands there, where the message does not.
        if let Some((_, label)) = e.labels().next().filter(|l| !l.1.is_empty() && !message.contains(l.1)) {
            message = format!("{message} ({label})");
        }
        error(message, places)
    })?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).map_err(|e| {
        let places = e.spans().filter(|s| s.0.is_defined()).map(|s| s.0.location(whole)).collect();
        let mut message = e.as_inner().to_string();
        let mut source = std::error::Error::source(e.as_inner());
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        error(message, places)
    })?;
    Ok((module, info))
}

/// A kernel from outside, compiled.
#[derive(Debug)]
pub struct Foreign {
    gpu: Gpu,
    name: String,
    args: Vec<Arg>,
    groups: [u32; 3],
    pipeline: wgpu::ComputePipeline,
}

/// A kernel with tensors of its own.
#[derive(Debug)]
pub struct Bound {
    call: Call,
    output: wgpu::Buffer,
    spec: Spec,
}

impl Foreign {
    /// Compiles a text that was checked, with run-time checks.
    ///
    /// # Errors
    /// The driver refuses it, or it needs more than the device has.
    pub fn new(gpu: &Gpu, name: &str, checked: &Checked, contract: &Contract) -> Result<Self, ExecError> {
        let writable: Vec<bool> = contract.args.iter().map(|a| *a == Arg::Output).collect();
        let pipeline = pipeline(gpu, name, &checked.text, &checked.entry, &writable)?;
        let (args, groups) = (contract.args.clone(), checked.groups);
        Ok(Self { gpu: gpu.clone(), name: name.to_owned(), args, groups, pipeline })
    }

    /// Gives it inputs and an output that starts as NaN.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn bind(&self, inputs: &[Tensor], output: &Spec) -> Result<Bound, ExecError> {
        let gpu = &self.gpu;
        let size = |spec: &Spec| spec.bytes().next_multiple_of(4).max(4) as u64;
        let mut buffers = Vec::with_capacity(inputs.len());
        for input in inputs {
            let bytes = size(&input.spec());
            let limit = gpu.max_tensor_bytes();
            if bytes > limit {
                return Err(ExecError::TooLarge { tensor: "an input".to_owned(), bytes, limit });
            }
            let buffer = storage(gpu, &self.name, bytes)?;
            gpu.queue.write_buffer(&buffer, 0, &words_of(input));
            buffers.push((buffer, bytes));
        }
        let bytes = size(output);
        let target = storage(gpu, &self.name, bytes)?;
        gpu.queue.write_buffer(&target, 0, bytemuck::cast_slice(&vec![UNWRITTEN; bytes as usize / 4]));
        gpu.queue.submit([]);
        let slot = |arg: &Arg| -> Slot<'_> {
            match arg {
                Arg::Input(k) => (&buffers[*k].0, buffers[*k].1, false),
                _ => (&target, bytes, true),
            }
        };
        let slots: Vec<Slot<'_>> = self.args.iter().map(slot).collect();
        let call = Call::new(gpu, &self.name, &self.pipeline, &slots, self.groups)?;
        Ok(Bound { call, output: target, spec: output.clone() })
    }

    /// Runs once; seconds between GPU timestamps, or of wall time where there are none.
    ///
    /// # Errors
    /// The device failed, or the kernel did not end within a minute.
    pub fn run(&self, bound: &Bound) -> Result<f64, ExecError> {
        bound.call.run(&self.gpu, &self.name, WATCHDOG)
    }

    /// The output after a run.
    ///
    /// # Errors
    /// The device failed.
    pub fn read(&self, bound: &Bound) -> Result<Tensor, ExecError> {
        let name = format!("the output of {}", self.name);
        let wanted =
            ReadBack { buffer: &bound.output, offset: 0, bytes: bound.spec.bytes() as u64, name, limit: WATCHDOG };
        let bytes = bytes_of(&self.gpu, wanted)?;
        Ok(tensor_of(&bound.spec, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Contract {
        Contract {
            consts: vec![("COUNT", Const::U(130)), ("K", Const::U(3)), ("BIAS", Const::B(true))],
            args: vec![Arg::Input(0), Arg::Input(1), Arg::Output],
            entry: "forward",
            groups: [3, 1, 1],
        }
    }

    const HEAD: &str = "@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
";

    fn run(rest: &str) -> Result<Checked, String> {
        let result = check("mine.wgsl", &format!("{HEAD}{rest}"), &contract());
        result.map_err(|e| {
            let text = e.to_string();
            assert!(text.starts_with("mine.wgsl"), "{text}");
            text
        })
    }

    #[test]
    fn constants_say_how_it_is_dispatched() {
        let body = "fn f(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x]; }";
        let plain = run(&format!("@compute @workgroup_size(64)\n{body}")).unwrap();
        assert_eq!((plain.entry.as_str(), plain.groups, plain.supported), ("f", [3, 1, 1], true));
        let own = run(&format!(
            "const GROUPS_X = (COUNT + 7u) / 8u;\nconst GROUPS_Z: u32 = 2;\nconst SUPPORTED = K == 3u && !BIAS;\n@compute @workgroup_size(8)\n{body}"
        ));
        let own = own.unwrap();
        assert_eq!((own.groups, own.supported), ([17, 1, 2], false));
        let e = run(&format!("const GROUPS_X = 0u;\n@compute @workgroup_size(8)\n{body}")).unwrap_err();
        assert!(e.contains("GROUPS_X is 0"), "{e}");
        let e = run(&format!("const GROUPS_Y = 2;\n@compute @workgroup_size(8)\n{body}")).unwrap_err();
        assert!(e.contains("GROUPS_Y has no type"), "{e}");
        let e = run(&format!("@compute @workgroup_size(8)\n{body}")).unwrap_err();
        assert!(e.contains("GROUPS_X") && e.contains("8x1x1"), "{e}");
        let two = format!(
            "@compute @workgroup_size(64)\n{body}\n@compute @workgroup_size(64)\n{}",
            body.replace("fn f", "fn g")
        );
        assert!(run(&two).unwrap_err().contains("it has f, g"));
        assert_eq!(run(&two.replace("fn g", "fn forward")).unwrap().entry, "forward");
    }

    #[test]
    fn faults_are_named_with_the_files_own_line() {
        let e = run("@compute @workgroup_size(64)\nfn f() {\n    let a = ;\n}").unwrap_err();
        assert!(e.starts_with("mine.wgsl:5:13: ") && e.contains("`let a = ;`"), "{e}");
        let e = run("@compute @workgroup_size(64)\nfn f() {\n    y[0] = 1u;\n}").unwrap_err();
        assert!(e.starts_with("mine.wgsl:5:"), "{e}");
        let e = run("const K = 5u;\n@compute @workgroup_size(64) fn f() { y[0] = 1.0; }").unwrap_err();
        assert!(e.starts_with("mine.wgsl:3:") && e.contains("K"), "{e}");
        for odd in ["", "\u{0}", "@", "fn f(", "@compute @workgroup_size(0) fn f() { y[0] = 1.0; }", "é漢{", "/*"] {
            run(odd).unwrap_err();
        }
    }

    #[test]
    fn bindings_must_be_those_of_the_op() {
        let e = run("@compute @workgroup_size(64) fn f() { let a = x[0]; }").unwrap_err();
        assert!(e.contains("writes nothing") && e.contains("@binding(2)"), "{e}");
        let third = "@group(0) @binding(3) var<storage, read_write> z: array<f32>;";
        let e = run(&format!("{third}\n@compute @workgroup_size(64) fn f() {{ z[0] = 1.0; }}")).unwrap_err();
        assert!(e.contains("@binding(3)") && e.contains("2 the output"), "{e}");
        let w = "@group(0) @binding(1) var<storage, read_write> w: array<f32>;";
        let e = run(&format!("{w}\n@compute @workgroup_size(64) fn f() {{ w[0] = 1.0; }}")).unwrap_err();
        assert!(e.contains("is an input"), "{e}");
        let u = "@group(0) @binding(1) var<uniform> u: vec4<f32>;";
        let e = run(&format!("{u}\n@compute @workgroup_size(64) fn f() {{ y[0] = u.x; }}")).unwrap_err();
        assert!(e.contains("storage"), "{e}");
    }
}
