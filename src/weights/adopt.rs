//! Weights that were trained for something else: other names, colour where there is grey, another number of classes.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::matching::{How, MatchError, Matching, Pair, bare, match_tensors, wrapper};
use super::{NamedTensor, TensorData, WeightsFile};

/// What weights of 3-channel images do with grey ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grey {
    /// The first convolution's weights are added up over its inputs. It then gives what it would give for three equal channels.
    Sum,
    /// The network keeps its three channels, and each of them is the image.
    Repeat,
}

impl FromStr for Grey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sum" => Ok(Self::Sum),
            "repeat" => Ok(Self::Repeat),
            _ => Err("give sum or repeat".to_owned()),
        }
    }
}

/// A rule `OLD=NEW` for the names of a file's tensors. It replaces a whole name, or whole parts in front of it: `backbone=features` makes
/// `features.0.weight` of `backbone.0.weight`, and leaves `backbone2.0.weight` alone. With nothing behind the sign the parts are dropped, with
/// nothing before it they are added to every name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    old: String,
    new: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').map(|(old, new)| (old.trim(), new.trim())) {
            Some((old, new)) if !(old.is_empty() && new.is_empty()) => {
                Ok(Self { old: old.to_owned(), new: new.to_owned() })
            }
            _ => Err(format!("`{text}`: write OLD=NEW, for example backbone=features or head.weight=fc.weight")),
        }
    }
}

impl fmt::Display for Rename {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.old, self.new)
    }
}

impl Rename {
    /// The new name, where the rule is about this one.
    fn apply(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix(self.old.as_str())?;
        let whole = rest.is_empty() || rest.starts_with('.') || self.old.is_empty() || self.old.ends_with('.');
        let rest = if self.new.is_empty() { rest.trim_start_matches('.') } else { rest };
        whole.then(|| format!("{}{rest}", self.new))
    }
}

/// Weights that do not go into a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdoptError {
    /// Names or shapes.
    #[error(transparent)]
    Match(#[from] MatchError),
    /// A rule about names that no tensor has.
    #[error(
        "key_map {rule}: no tensor's name is `{old}` or begins with it (the first is `{first}`); `radiograd weights show` lists them"
    )]
    Unused {
        /// The rule.
        rule: String,
        /// What it looks for.
        old: String,
        /// A name of the file.
        first: String,
    },
    /// Two tensors of one name.
    #[error("key_map gives two tensors the name `{name}`; correct it")]
    Twice {
        /// The name.
        name: String,
    },
    /// Colour weights for grey images.
    #[error(
        "`{name}` of the file takes images of 3 channels, here they are grey: give --grey sum (its weights are added up over the channels) \
         or --grey repeat (each channel is the image)"
    )]
    Colour {
        /// The first convolution's weight.
        name: String,
    },
}

/// Names and shapes of a network's parameters and running statistics, in its order.
pub type Wanted = [(String, Vec<usize>)];

/// Brings a file's names and first convolution to those of a network: the first of the `rules` that fits a name changes it; the names of
/// DenseNets that torchvision wrote before 2018 (`denselayer1.norm.1.weight`) become today's (`denselayer1.norm1.weight`); and with
/// [`Grey::Sum`] the first convolution is summed over its inputs, where the file's has three and the network's one.
///
/// # Errors
/// Rules that fit nothing or give a name twice; a first convolution of three channels for grey images without [`Grey::Sum`].
pub fn prepare(
    mut file: WeightsFile,
    model: &Wanted,
    rules: &[Rename],
    grey: Option<Grey>,
) -> Result<WeightsFile, AdoptError> {
    rename(&mut file, rules)?;
    sum_channels(&mut file, model, grey)?;
    Ok(file)
}

fn rename(file: &mut WeightsFile, rules: &[Rename]) -> Result<(), AdoptError> {
    if let (Some(prefix), false) = (wrapper(file), rules.is_empty()) {
        // A rule may name what a wrapper has put in front, or not.
        let named = rules.iter().any(|r| r.old.starts_with(prefix));
        for t in file.tensors.iter_mut().filter(|_| !named) {
            t.name = bare(&t.name, Some(prefix)).to_owned();
        }
    }
    let mut used = vec![false; rules.len()];
    let mut names = HashSet::with_capacity(file.tensors.len());
    for t in &mut file.tensors {
        for (rule, used) in rules.iter().zip(&mut used) {
            if let Some(name) = rule.apply(&t.name) {
                (t.name, *used) = (name, true);
                break;
            }
        }
        if let Some(name) = todays_name(&t.name) {
            t.name = name;
        }
        if !names.insert(t.name.clone()) && !rules.is_empty() {
            return Err(AdoptError::Twice { name: t.name.clone() });
        }
    }
    match rules.iter().zip(used).find(|(_, used)| !used) {
        Some((rule, _)) => {
            let first = file.tensors.first().map(|t| t.name.clone()).unwrap_or_default();
            Err(AdoptError::Unused { rule: rule.to_string(), old: rule.old.clone(), first })
        }
        None => Ok(()),
    }
}

/// `...denselayer1.norm.2.weight` as `...denselayer1.norm2.weight`: dots are no longer part of module names, but the published files are
/// older than that rule.
fn todays_name(name: &str) -> Option<String> {
    let parts: Vec<&str> = name.split('.').collect();
    let at = parts.windows(3).position(|w| {
        w[0].strip_prefix("denselayer").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            && ["norm", "conv"].contains(&w[1])
            && ["1", "2"].contains(&w[2])
    })?;
    let joined = format!("{}{}", parts[at + 1], parts[at + 2]);
    Some([&parts[..=at], &[joined.as_str()], &parts[at + 3..]].concat().join("."))
}

/// Sums the first convolution over three channels where the network has one.
fn sum_channels(file: &mut WeightsFile, model: &Wanted, grey: Option<Grey>) -> Result<(), AdoptError> {
    let Some((name, want)) = model.iter().find(|(_, shape)| shape.len() == 4) else { return Ok(()) };
    let prefix = wrapper(file);
    let tensors = &mut file.tensors;
    let place = tensors.iter().position(|t| bare(&t.name, prefix) == name);
    let place = place.or_else(|| tensors.iter().position(|t| t.shape.len() == 4));
    let Some(t) = place.and_then(|i| tensors.get_mut(i)) else { return Ok(()) };
    let (&[o, 1, h, w], &[to, 3, th, tw]) = (want.as_slice(), t.shape.as_slice()) else { return Ok(()) };
    if (o, h, w) != (to, th, tw) {
        return Ok(());
    }
    let (Some(Grey::Sum), TensorData::F32(weights)) = (grey, &t.data) else {
        return Err(AdoptError::Colour { name: t.name.clone() });
    };
    let window = h * w;
    let filters = weights.chunks_exact(3 * window);
    let sums = filters.flat_map(|f| (0..window).map(move |i| f[i] + f[window + i] + f[2 * window + i]));
    t.data = TensorData::F32(sums.collect());
    t.shape = vec![o, 1, h, w];
    Ok(())
}

/// What [`adopt`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// What goes where. Nothing but the head is missing.
    pub matching: Matching,
    /// The head, where it keeps its first values.
    pub fresh: Option<FreshHead>,
}

/// A last layer that the file has no weights for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshHead {
    /// Its weight.
    pub name: String,
    /// Its outputs.
    pub outputs: usize,
    /// Those of the file's; `None` where the file has none.
    pub in_file: Option<usize>,
}

impl fmt::Display for FreshHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} begins anew with {} outputs: ", self.name, self.outputs)?;
        match self.in_file {
            Some(n) => write!(f, "the file's has {n}"),
            None => write!(f, "the file has none"),
        }
    }
}

/// Matches a file to a network whose last layer, the parameters `head` at its end, may have another number of outputs than the file's, or none
/// there. All else must fit, as in [`match_tensors`]. Tensors of the file without a place are listed, not refused.
///
/// The file is given back in the order in which it was matched.
///
/// # Errors
/// The first tensor that does not fit, or that the file lacks.
pub fn adopt(model: &Wanted, head: &[String], mut file: WeightsFile) -> Result<(Adopted, WeightsFile), MatchError> {
    if let Ok(matching) = match_tensors(model, &file)
        && matching.missing.is_empty()
    {
        return Ok((Adopted { matching, fresh: None }, file));
    }
    let body: Vec<(String, Vec<usize>)> = model.iter().filter(|(name, _)| !head.contains(name)).cloned().collect();
    let prefix = wrapper(&file);
    let floats = |t: &NamedTensor| matches!(t.data, TensorData::F32(_));
    let by_name = file.tensors.iter().any(|t| model.iter().any(|(name, _)| bare(&t.name, prefix) == name));
    let theirs: HashSet<String> = if by_name {
        let is_head = |t: &&NamedTensor| head.iter().any(|name| bare(&t.name, prefix) == name);
        file.tensors.iter().filter(is_head).map(|t| t.name.clone()).collect()
    } else {
        let names: Vec<&String> = file.tensors.iter().filter(|t| floats(t)).map(|t| &t.name).collect();
        let from = if names.len() == model.len() { body.len() } else { names.len() };
        names.into_iter().skip(from).cloned().collect()
    };
    let (heads, rest): (Vec<_>, Vec<_>) = file.tensors.into_iter().partition(|t| theirs.contains(&t.name));
    file.tensors = rest;
    let mut matching = match_tensors(&body, &file)?;
    matching.nothing_missing(&body)?;
    let wanted: Vec<&(String, Vec<usize>)> = model.iter().filter(|(name, _)| head.contains(name)).collect();
    let found = |(i, (name, _)): (usize, &&(String, Vec<usize>))| match matching.how {
        How::ByName => heads.iter().find(|t| bare(&t.name, prefix) == name),
        How::ByOrder => heads.get(i),
    };
    let pairs: Vec<_> = wanted.iter().enumerate().map(|(i, w)| (*w, found((i, w)))).collect();
    let mut fresh = None;
    if let Some(((name, shape), tensor)) = pairs.iter().find(|((_, shape), t)| t.is_none_or(|t| t.shape != *shape)) {
        // Another number of classes changes the first axis and nothing else.
        if let Some(t) = tensor
            && (t.shape.len() != shape.len() || t.shape.get(1..) != shape.get(1..))
        {
            return Err(MatchError::Shape {
                model: name.clone(),
                model_shape: shape.clone(),
                file: t.name.clone(),
                file_shape: t.shape.clone(),
            });
        }
        let outputs = shape.first().copied().unwrap_or(0);
        fresh = Some(FreshHead { name: name.clone(), outputs, in_file: tensor.and_then(|t| t.shape.first().copied()) });
    } else {
        let pair = |((name, shape), t): &(&(String, Vec<usize>), Option<&NamedTensor>)| {
            let file = t.map(|t| t.name.clone())?;
            Some(Pair { model: name.clone(), file, shape: shape.clone() })
        };
        matching.pairs.extend(pairs.iter().filter_map(pair));
    }
    file.tensors.extend(heads);
    Ok((Adopted { matching, fresh }, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[(&str, &[usize])]) -> WeightsFile {
        let tensor = |(name, shape): &(&str, &[usize])| {
            let n: usize = shape.iter().product();
            let data = TensorData::F32((0..n).map(|i| i as f32).collect());
            NamedTensor { name: (*name).to_owned(), shape: shape.to_vec(), data }
        };
        WeightsFile { tensors: tensors.iter().map(tensor).collect(), ..WeightsFile::default() }
    }

    fn model(entries: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        entries.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    fn rules(texts: &[&str]) -> Vec<Rename> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    fn names(file: &WeightsFile) -> Vec<&str> {
        file.tensors.iter().map(|t| t.name.as_str()).collect()
    }

    #[test]
    fn rules_replace_whole_parts() {
        let cases = [
            ("backbone=features", "backbone.0.weight", Some("features.0.weight")),
            ("backbone=features", "backbone2.0.weight", None),
            ("backbone.=", "backbone.0.weight", Some("0.weight")),
            ("backbone=", "backbone.0.weight", Some("0.weight")),
            ("head.weight=fc.weight", "head.weight", Some("fc.weight")),
            ("=net.", "head.weight", Some("net.head.weight")),
            ("a.b=c", "a.b.c.d", Some("c.c.d")),
        ];
        for (rule, name, want) in cases {
            assert_eq!(rule.parse::<Rename>().unwrap().apply(name).as_deref(), want, "{rule}");
        }
        assert!("a".parse::<Rename>().is_err() && "=".parse::<Rename>().is_err());
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_each_must_fit_something() {
        let f = file(&[("a.0.w", &[1]), ("a.1.w", &[1]), ("b", &[1])]);
        let got = prepare(f.clone(), &[], &rules(&["a.0=first", "a=rest"]), None).unwrap();
        assert_eq!(names(&got), ["first.w", "rest.1.w", "b"]);
        let unused = prepare(f.clone(), &[], &rules(&["c=d"]), None).unwrap_err().to_string();
        assert!(unused.contains("`c`") && unused.contains("`a.0.w`") && !unused.contains('\n'), "{unused}");
        let twice = prepare(f, &[], &rules(&["a.0=x", "a.1=x"]), None).unwrap_err();
        assert_eq!(twice, AdoptError::Twice { name: "x.w".to_owned() });
        // A wrapper's prefix is looked through, and may be named.
        let wrapped = file(&[("module.a.w", &[1]), ("module.b", &[1])]);
        for rule in ["a=c", "module.a=module.c"] {
            let got = prepare(wrapped.clone(), &[], &rules(&[rule]), None).unwrap();
            assert!(names(&got)[0].ends_with("c.w"), "{rule}: {:?}", names(&got));
        }
    }

    #[test]
    fn old_densenets_get_todays_names() {
        let old = file(&[
            ("features.denseblock1.denselayer12.norm.1.running_var", &[1]),
            ("features.denseblock1.denselayer12.conv.2.weight", &[1]),
            ("features.transition1.norm.weight", &[1]),
        ]);
        let got = prepare(old, &[], &[], None).unwrap();
        let want = [
            "features.denseblock1.denselayer12.norm1.running_var",
            "features.denseblock1.denselayer12.conv2.weight",
            "features.transition1.norm.weight",
        ];
        assert_eq!(names(&got), want);
    }

    #[test]
    fn colour_is_summed_or_refused() {
        let m = model(&[("c.weight", &[2, 1, 1, 2]), ("d.weight", &[2, 3, 1, 1])]);
        let f = file(&[("c.weight", &[2, 3, 1, 2]), ("d.weight", &[2, 3, 1, 1])]);
        let got = prepare(f.clone(), &m, &[], Some(Grey::Sum)).unwrap();
        assert_eq!(
            (got.tensors[0].shape.as_slice(), got.tensors[1].shape.as_slice()),
            (&[2, 1, 1, 2][..], &[2, 3, 1, 1][..])
        );
        assert_eq!(
            got.tensors[0].data,
            TensorData::F32(vec![0. + 2. + 4., 1. + 3. + 5., 6. + 8. + 10., 7. + 9. + 11.])
        );
        let error = prepare(f, &m, &[], None).unwrap_err().to_string();
        assert!(error.contains("`c.weight`") && error.contains("--grey sum"), "{error}");
    }

    #[test]
    fn a_head_of_other_classes_begins_anew_and_all_else_must_fit() {
        let m = model(&[("c.weight", &[2, 1, 1, 1]), ("fc.weight", &[2, 5]), ("fc.bias", &[2])]);
        let head = ["fc.weight".to_owned(), "fc.bias".to_owned()];
        let fit = |tensors: &[(&str, &[usize])]| adopt(&m, &head, file(tensors));
        let conv: (&str, &[usize]) = ("c.weight", &[2, 1, 1, 1]);
        let (same, _) = fit(&[conv, ("fc.weight", &[2, 5]), ("fc.bias", &[2]), ("aux.weight", &[1])]).unwrap();
        assert_eq!((same.matching.pairs.len(), same.matching.unexpected.len(), same.fresh), (3, 1, None));
        for (named, how) in [(["c.weight", "fc.weight", "fc.bias"], How::ByName), (["0.w", "1.w", "1.b"], How::ByOrder)]
        {
            let (other, back) = fit(&[(named[0], &[2, 1, 1, 1]), (named[1], &[1000, 5]), (named[2], &[1000])]).unwrap();
            assert_eq!((other.matching.pairs.len(), other.matching.how, back.tensors.len()), (1, how, 3));
            let line = other.fresh.unwrap().to_string();
            assert!(["fc.weight", "2 outputs", "1000"].iter().all(|w| line.contains(w)), "{line}");
        }
        let (none, _) = fit(&[conv]).unwrap();
        assert_eq!(none.fresh.unwrap().in_file, None);
        let deeper = fit(&[conv, ("fc.weight", &[2, 7]), ("fc.bias", &[2])]).unwrap_err();
        assert!(matches!(&deeper, MatchError::Shape { model, .. } if model == "fc.weight"), "{deeper}");
        let missing = fit(&[("fc.weight", &[3, 5]), ("fc.bias", &[3])]).unwrap_err();
        assert!(matches!(&missing, MatchError::Missing { model, .. } if model == "c.weight"), "{missing}");
        let wide = fit(&[("c.weight", &[9, 1, 1, 1]), ("fc.weight", &[2, 5]), ("fc.bias", &[2])]).unwrap_err();
        assert!(matches!(&wide, MatchError::Shape { model, .. } if model == "c.weight"), "{wide}");
    }
}
