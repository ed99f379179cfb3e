//! Matching a file's tensors to a model's parameters.

use radiograd::weights::{How, MatchError, NamedTensor, TensorData, WeightsFile, match_tensors};

fn file(tensors: &[(&str, &[usize])]) -> WeightsFile {
    let tensor = |(name, shape): &(&str, &[usize])| {
        let n = shape.iter().product();
        let data = match name.ends_with("num_batches_tracked") {
            true => TensorData::I64(vec![3; n]),
            false => TensorData::F32(vec![0.5; n]),
        };
        NamedTensor { name: (*name).into(), shape: shape.to_vec(), data }
    };
    WeightsFile { tensors: tensors.iter().map(tensor).collect(), ..Default::default() }
}

fn model(entries: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
    entries.iter().map(|(n, s)| ((*n).to_owned(), s.to_vec())).collect()
}

#[test]
fn names_decide_where_they_agree_whatever_the_order() {
    let m = model(&[("a", &[2]), ("b", &[2])]);
    let f = file(&[("b", &[2]), ("n.num_batches_tracked", &[]), ("extra", &[1]), ("a", &[2])]);
    let got = match_tensors(&m, &f).unwrap();
    assert_eq!(got.how, How::ByName);
    assert!(got.pairs.iter().all(|p| p.model == p.file));
    assert_eq!(
        (got.unexpected.as_slice(), got.ignored.as_slice()),
        (&["extra".to_owned()][..], &["n.num_batches_tracked".to_owned()][..])
    );
    let listing = got.to_string();
    assert!(listing.contains("by name") && listing.contains("left aside: n.num_batches_tracked"), "{listing}");
    assert!(matches!(got.complete(&m, &f), Err(MatchError::Unexpected { file, .. }) if file == "extra"));
}

#[test]
fn a_wrappers_prefix_is_looked_through() {
    let got =
        match_tensors(&model(&[("a", &[2]), ("b", &[2])]), &file(&[("module.b", &[2]), ("module.a", &[2])])).unwrap();
    assert_eq!(got.how, How::ByName);
    assert_eq!(got.pairs[0].file, "module.a");
}

#[test]
fn order_and_shape_decide_else_and_counters_stay_aside() {
    let m = model(&[("conv.weight", &[4, 1, 3, 3]), ("bn.weight", &[4]), ("bn.running_mean", &[4])]);
    let f = file(&[
        ("0.weight", &[4, 1, 3, 3]),
        ("1.num_batches_tracked", &[]),
        ("1.weight", &[4]),
        ("1.running_mean", &[4]),
    ]);
    let got = match_tensors(&m, &f).unwrap();
    assert_eq!(got.how, How::ByOrder);
    assert_eq!(
        got.pairs.iter().map(|p| p.file.as_str()).collect::<Vec<_>>(),
        ["0.weight", "1.weight", "1.running_mean"]
    );
    assert_eq!(got.ignored, ["1.num_batches_tracked"]);
    assert!(got.clone().complete(&m, &f).is_ok());
    assert!(got.to_string().contains("conv.weight     <- 0.weight [4, 1, 3, 3]"), "{got}");
}

#[test]
fn order_never_crosses_names_that_both_sides_know() {
    // By order, `b` would get the tensor `c`, though the file has a `b`.
    let got = match_tensors(&model(&[("a", &[2]), ("b", &[2])]), &file(&[("b", &[2]), ("c", &[2])])).unwrap();
    assert_eq!(got.how, How::ByName);
    assert_eq!((got.missing.as_slice(), got.unexpected.as_slice()), (&["a".to_owned()][..], &["c".to_owned()][..]));
}

#[test]
fn the_first_tensor_that_does_not_fit_is_named_with_both_shapes() {
    let m = model(&[("w1", &[4, 2]), ("w2", &[3])]);
    let error = match_tensors(&m, &file(&[("x", &[4, 2]), ("y", &[5])])).unwrap_err().to_string();
    assert!(["`w2`", "[3]", "`y`", "[5]"].iter().all(|part| error.contains(part)), "{error}");
    let by_name = match_tensors(&m, &file(&[("w2", &[5]), ("w1", &[4, 2])])).unwrap_err();
    assert!(matches!(by_name, MatchError::Shape { model, .. } if model == "w2"));
    let short = match_tensors(&m, &file(&[("x", &[4, 2])])).unwrap_err();
    assert_eq!(short, MatchError::Missing { model: "w2".into(), shape: vec![3], more: 0 });
    let long = match_tensors(&m, &file(&[("x", &[4, 2]), ("y", &[3]), ("z", &[7])])).unwrap_err();
    assert_eq!(long, MatchError::Unexpected { file: "z".into(), shape: vec![7], more: 0 });
    let mut integers = file(&[("w1", &[4, 2]), ("w2", &[3])]);
    integers.tensors[1].data = TensorData::I64(vec![0; 3]);
    assert!(matches!(match_tensors(&m, &integers), Err(MatchError::NotFloat { .. })));
}
