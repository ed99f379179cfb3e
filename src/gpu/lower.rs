//! What an op says about its kernels, without a word of wgpu: which WGSL page, specialised how, bound to what.

/// A constant that is written in front of a shader's text (`const NAME: u32 = 32u;`) and that its template sees under
/// the same name.
#[derive(Clone, Debug, PartialEq)]
pub enum Const {
    /// `u32`
    U(u32),
    /// `i32`
    I(i32),
    /// `f32`
    F(f32),
    /// `u32` that the page reads as `late.NAME` and that is set when the dispatch is encoded, so that one pipeline serves all
    /// values. For sizes round a body that is dear to compile, such as bounds of loops; the template does not see it. An adapter without
    /// immediate data, as in a browser, has it in a uniform buffer.
    Late(u32),
    /// `u32` that the page reads by its name alone, and the template too, but only where the program runs: not in another constant, a size
    /// or a type. Where [`Const::Late`] lies in a uniform buffer, it does too, so that a browser compiles one pipeline for all values;
    /// everywhere else it is a [`Const::U`], because a kernel divides by a constant much faster.
    Loose(u32),
    /// `bool`
    B(bool),
    /// Text for the template alone, made from the shapes.
    Formula(String),
    /// Text for the template alone, for example a formula.
    Text(&'static str),
}

/// What a binding of a dispatch refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arg {
    /// The node's K-th input.
    Input(usize),
    /// The node's output.
    Output,
    /// The output of the node's companion (see [`Op::companion`](crate::ops::Op::companion)).
    Companion,
    /// The K-th persistent variable that the op updates.
    State(usize),
    /// The K-th scratch buffer of this lowering.
    Scratch(usize),
    /// A window of an input or of scratch, copied into a texture before the dispatch.
    Texture(Texture),
}

/// What a texture holds in each texel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Texel {
    /// One `f32`: `r32float`.
    F1,
    /// Two: `rg32float`.
    F2,
    /// Four: `rgba32float`.
    F4,
    /// One `u32`: `r32uint`.
    U1,
}

impl Texel {
    /// Numbers of 32 bits in a texel.
    #[must_use]
    pub fn numbers(self) -> usize {
        match self {
            Self::F1 | Self::U1 => 1,
            Self::F2 => 2,
            Self::F4 => 4,
        }
    }
}

/// What is copied into a texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Held {
    /// The node's K-th input.
    Input(usize),
    /// The K-th scratch buffer of this lowering.
    Scratch(usize),
}

/// A window of a tensor as a storage texture that a kernel only reads. Software Vulkan (llvmpipe) loads from a buffer number by
/// number, with a test of the bounds and a branch for each, but from a texture all lanes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Texture {
    /// Where it is copied from.
    pub of: Held,
    /// Its format.
    pub texel: Texel,
    /// First number of the window; a whole number of texels.
    pub first: usize,
    /// Texels in a row of the texture.
    pub width: usize,
    /// Numbers from one row to the next in the buffer; a multiple of 64 where there is more than one row.
    pub pitch: usize,
    /// Texels in all; the last row may be shorter than the others.
    pub texels: usize,
}

/// Texels in a row of a texture that holds a plain run of numbers: texel `i` lies at `(i % TEXTURE_ROW, i / TEXTURE_ROW)`.
pub const TEXTURE_ROW: usize = 1024;
/// The most rows, and texels in a row, of a texture: what every Vulkan driver has room for.
pub const MAX_TEXTURE: usize = 4096;

impl Texture {
    /// `count` numbers from the `first` one on.
    #[must_use]
    pub fn run(of: Held, texel: Texel, first: usize, count: usize) -> Self {
        let texels = count.div_ceil(texel.numbers());
        Self { of, texel, first, width: TEXTURE_ROW, pitch: TEXTURE_ROW * texel.numbers(), texels }
    }

    /// Rows, the last one perhaps in part.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.texels.div_ceil(self.width.max(1))
    }

    /// Whether every driver can hold it and copy it.
    #[must_use]
    pub fn fits(&self) -> bool {
        let rows = self.rows();
        self.width <= MAX_TEXTURE
            && (1..=MAX_TEXTURE).contains(&rows)
            && (rows == 1 || self.pitch.is_multiple_of(64))
            && self.first.is_multiple_of(self.texel.numbers())
    }
}

/// One dispatch: binding `i` of group 0 is `args[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Dispatch {
    /// File below `shaders/`, for example `conv2d.wgsl`.
    pub shader: &'static str,
    /// Entry point in that file.
    pub entry: &'static str,
    /// The specialisation.
    pub consts: Vec<(&'static str, Const)>,
    /// What is bound, in the order of the binding numbers.
    pub args: Vec<Arg>,
    /// Workgroups in x, y, z; each at most 65,535.
    pub groups: [u32; 3],
}

/// The dispatches of one node, in order, and the scratch memory that they share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lowering {
    /// Dispatches, run in order.
    pub dispatches: Vec<Dispatch>,
    /// Sizes of the scratch buffers, in 4-byte words.
    pub scratch: Vec<usize>,
}

/// What kernels are chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterKind {
    /// A graphics card with its own memory.
    Discrete,
    /// A GPU that shares the memory of the CPU.
    Integrated,
    /// A CPU that runs the shaders (lavapipe, SwiftShader, WARP).
    Software,
}

impl AdapterKind {
    /// `discrete`, `integrated` or `software`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Software => "software",
        }
    }
}

/// The most workgroups that WebGPU allows along one axis.
pub const MAX_GROUPS: u32 = 65_535;

/// Where a shader finds the values of [`Const::Late`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// In its text.
    Text,
    /// In immediate data.
    Immediate,
    /// In a uniform buffer at [`LATE_BINDING`], [`Const::Loose`] with them.
    Uniform,
}

/// The binding of the uniform buffer of [`Late::Uniform`]: past those of every entry point, because a page has several.
pub const LATE_BINDING: u32 = 64;

/// The most [`Const::Late`] of a dispatch: what every Vulkan driver has room for.
pub const MAX_LATE: usize = 32;

/// The [`Const::Late`] that move a part of a dispatch along: the number of its first workgroup on each axis.
pub(super) const FIRST_GROUP: [&str; 3] = ["FIRST_GROUP_X", "FIRST_GROUP_Y", "FIRST_GROUP_Z"];

impl Dispatch {
    /// The same for parts of it, which begin with other workgroups than the first; `None` where there is no room for the three numbers.
    pub(super) fn movable(&self) -> Option<Self> {
        let mut moved = self.clone();
        moved.consts.extend(FIRST_GROUP.map(|name| (name, Const::Late(0))));
        (moved.late(Late::Immediate).len() <= MAX_LATE).then_some(moved)
    }

    /// Names and values of the constants that are not in the text, in order, as they lie in `late`.
    pub(super) fn named_late(&self, place: Late) -> impl Iterator<Item = (&'static str, u32)> {
        self.consts.iter().filter_map(move |(name, value)| match value {
            Const::Late(v) => Some((*name, *v)),
            Const::Loose(v) if place == Late::Uniform => Some((*name, *v)),
            _ => None,
        })
    }

    /// The values of [`Const::Late`] and what lies with them there, in order, as they lie in `late`.
    #[must_use]
    pub fn late(&self, place: Late) -> Vec<u32> {
        self.named_late(place).map(|(_, v)| v).collect()
    }

    /// One invocation for each of `count` elements, `WG` of them to a workgroup. The grid is folded into two axes where
    /// one does not hold it; the shader finds its element as `id.y * GRID_X + id.x` and must return past `COUNT`.
    #[must_use]
    pub fn elementwise(
        shader: &'static str,
        entry: &'static str,
        count: usize,
        args: Vec<Arg>,
        mut consts: Vec<(&'static str, Const)>,
    ) -> Self {
        const WG: u32 = 64;
        let (groups, grid_x) = fold(count.div_ceil(WG as usize));
        consts.push(("WG", Const::U(WG)));
        consts.push(("GRID_X", Const::Loose(grid_x * WG)));
        consts.push(("COUNT", Const::Loose(count as u32)));
        Self { shader, entry, consts, args, groups }
    }
}

impl Dispatch {
    /// The textures that it reads, with the numbers of their bindings.
    pub fn textures(&self) -> impl Iterator<Item = (usize, &Texture)> {
        self.args.iter().enumerate().filter_map(|(i, arg)| if let Arg::Texture(t) = arg { Some((i, t)) } else { None })
    }

    /// Adds `splits` partial results of `len` numbers each, which lie in scratch buffer 0, into the output, in their order.
    #[must_use]
    pub fn sum_partials(len: usize, splits: usize) -> Self {
        let size = |v: usize| Const::Loose(v as u32);
        let (groups, row) = fold(len.div_ceil(64));
        let consts = vec![
            ("LEN", size(len)),
            ("SPLITS", size(splits)),
            ("BIAS", Const::B(false)),
            ("ROW", Const::Loose(row * 64)),
        ];
        let args = vec![Arg::Scratch(0), Arg::Output];
        Self { shader: "sum_partials.wgsl", entry: "sum_partials", consts, args, groups }
    }
}

/// Folds a number of workgroups into two axes; returns them and the width of a row.
#[must_use]
pub fn fold(groups: usize) -> ([u32; 3], u32) {
    let groups = groups.max(1);
    let x = groups.min(MAX_GROUPS as usize);
    ([x as u32, groups.div_ceil(x) as u32, 1], x as u32)
}

/// The most loop turns that a kernel lets one invocation take. Software Vulkan (llvmpipe) ends every loop of an invocation
/// once it has taken 65,535 turns in all, and says nothing.
pub const MAX_TURNS: usize = 60_000;

/// One dispatch as a series that shares a long outermost loop: `total` turns of it, each of `turns` turns inside. The shader
/// runs from `FIRST` to `LAST`, adds to what is there unless `FIRST` is 0, and finishes where `LAST` is `TURNS`.
#[must_use]
pub fn in_series(dispatch: Dispatch, total: usize, turns: usize) -> Vec<Dispatch> {
    let step = (MAX_TURNS / (turns + 1)).max(1);
    (0..total.max(1))
        .step_by(step)
        .map(|first| {
            let mut d = dispatch.clone();
            d.consts.push(("FIRST", Const::U(first as u32)));
            d.consts.push(("LAST", Const::U((first + step).min(total) as u32)));
            d.consts.push(("TURNS", Const::U(total as u32)));
            d
        })
        .collect()
}
