//! What outlives a step: parameters, running statistics, optimizer moments, the training set, logs.
//!
//! A [`ParamStore`] describes persistent variables and holds their values on the host; an executor keeps them on its
//! device, where several graphs (training, evaluation, a pass that is drawn) share them.
//!
//! All trainable parameters are ranges of one variable, so that an optimizer step is one dispatch; all running statistics
//! are ranges of another. Ranges start at multiples of [`ALIGN`] elements (256 bytes, the strictest binding alignment of
//! WebGPU adapters); the gaps are zero and stay zero.

use crate::graph::VarView;
use crate::shape::{Shape, Spec};
use crate::tensor::Tensor;

/// Alignment of ranges in a shared variable, in elements.
pub const ALIGN: usize = 64;

/// Index of a persistent variable in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VarId(pub(crate) u32);

impl VarId {
    /// Position in the store.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A persistent variable and its value when the executor takes it over.
#[derive(Clone, Debug)]
pub struct Var {
    /// For messages.
    pub name: String,
    /// Shape and type.
    pub spec: Spec,
    /// The first value; `None` is zeros, without the host memory for them.
    pub init: Option<Tensor>,
}

/// Whether gradients flow into a named tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Updated by the optimizer.
    Trainable,
    /// Updated by the forward pass (running statistics) or not at all.
    Buffer,
}

/// A named tensor of the network: a range of one of the two shared variables.
#[derive(Clone, Debug)]
pub struct Param {
    /// Dotted name, as in a state_dict.
    pub name: String,
    /// Trainable or not.
    pub role: Role,
    /// Its range.
    pub view: VarView,
}

/// The persistent variables of a model and what trains it.
#[derive(Clone, Debug)]
pub struct ParamStore {
    vars: Vec<Var>,
    params: Vec<Param>,
    values: [Vec<f32>; 2],
}

impl Default for ParamStore {
    fn default() -> Self {
        Self::new()
    }
}

impl ParamStore {
    /// The variable that holds every trainable parameter.
    pub const TRAINABLE: VarId = VarId(0);
    /// The variable that holds every running statistic.
    pub const BUFFERS: VarId = VarId(1);

    /// A store without parameters.
    #[must_use]
    pub fn new() -> Self {
        let var = |name: &str| Var { name: name.to_owned(), spec: Spec::float([0]), init: None };
        Self { vars: vec![var("parameters"), var("buffers")], params: Vec::new(), values: [Vec::new(), Vec::new()] }
    }

    /// Adds a named tensor with its first value. All of them must be added before an executor takes the store.
    pub fn add_param(&mut self, name: &str, role: Role, shape: impl Into<Shape>, value: &[f32]) -> Param {
        let spec = Spec::float(shape);
        assert_eq!(spec.numel(), value.len(), "the value of {name} must fill {spec}");
        let which = match role {
            Role::Trainable => Self::TRAINABLE,
            Role::Buffer => Self::BUFFERS,
        };
        let arena = &mut self.values[which.index()];
        let offset = arena.len();
        arena.extend_from_slice(value);
        arena.resize(arena.len().next_multiple_of(ALIGN), 0.0);
        self.vars[which.index()].spec = Spec::float([arena.len()]);
        let param = Param { name: name.to_owned(), role, view: VarView { var: which, offset, spec } };
        self.params.push(param.clone());
        param
    }

    /// Lays the trainable parameters out by rank, those of equal rank in the order in which they were added. What belongs
    /// together then lies together, and is one dispatch. The order of [`ParamStore::params`] stays. Gives the parameters with
    /// their new places: whoever holds copies of the old ones must take these.
    #[must_use]
    pub fn arrange<R: Ord>(&mut self, rank: impl Fn(&Param) -> R) -> Vec<Param> {
        let mut order: Vec<usize> =
            (0..self.params.len()).filter(|&i| self.params[i].role == Role::Trainable).collect();
        order.sort_by_key(|&i| rank(&self.params[i]));
        let old = std::mem::take(&mut self.values[Self::TRAINABLE.index()]);
        let mut new = Vec::with_capacity(old.len());
        for i in order {
            let view = &mut self.params[i].view;
            let value = &old[view.offset..view.offset + view.spec.numel()];
            view.offset = new.len();
            new.extend_from_slice(value);
            new.resize(new.len().next_multiple_of(ALIGN), 0.0);
        }
        self.values[Self::TRAINABLE.index()] = new;
        self.params.clone()
    }

    /// Adds a variable of its own.
    pub fn add_var(&mut self, name: &str, spec: Spec, init: Option<Tensor>) -> VarView {
        let var = VarId(self.vars.len() as u32);
        self.vars.push(Var { name: name.to_owned(), spec: spec.clone(), init });
        VarView { var, offset: 0, spec }
    }

    /// Leaves a variable without elements, where no memory is to be had for them. Views of it must go.
    pub fn empty(&mut self, view: &VarView) {
        let var = &mut self.vars[view.var.index()];
        *var =
            Var { name: std::mem::take(&mut var.name), spec: Spec { shape: Shape::from([0]), ..var.spec }, init: None };
    }

    /// All variables; the shared ones come first.
    #[must_use]
    pub fn vars(&self) -> &[Var] {
        &self.vars
    }

    /// The named tensors, in the order in which they were added.
    #[must_use]
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The value that an executor starts a variable with.
    #[must_use]
    pub fn initial(&self, var: VarId) -> Option<Tensor> {
        match self.values.get(var.index()) {
            Some(values) => Tensor::f32([values.len()], values.clone()).ok(),
            None => self.vars[var.index()].init.clone(),
        }
    }

    /// The host's copy of a named tensor.
    #[must_use]
    pub fn value(&self, param: &Param) -> &[f32] {
        let v = &param.view;
        &self.values[v.var.index()][v.offset..v.offset + v.spec.numel()]
    }

    /// Sets the host's copy of a named tensor; the length must be the shape's.
    pub fn set_value(&mut self, index: usize, value: &[f32]) {
        let v = self.params[index].view.clone();
        self.values[v.var.index()][v.offset..v.offset + v.spec.numel()].copy_from_slice(value);
    }

    /// Number of trainable numbers, gaps left out.
    #[must_use]
    pub fn trainable_numel(&self) -> usize {
        self.params.iter().filter(|p| p.role == Role::Trainable).map(|p| p.view.spec.numel()).sum()
    }

    /// The whole trainable variable, gaps included.
    #[must_use]
    pub fn trainable_view(&self) -> VarView {
        VarView { var: Self::TRAINABLE, offset: 0, spec: self.vars[0].spec.clone() }
    }
}
