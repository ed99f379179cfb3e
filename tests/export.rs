//! Networks as ONNX files: sound graphs with the network's names and weights, and what the command does.
//! `scripts/onnx_test.sh` holds them against ONNX's own checker and ONNX Runtime.

#[allow(dead_code, reason = "only some of the laboratory is needed here")]
#[path = "common/lab.rs"]
mod lab;
#[path = "common/program.rs"]
mod program;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;

use lab::{Lab, MODEL, training};
use prost::Message;
use radiograd::nn::named::NAMES;
use radiograd::nn::plan::Action;
use radiograd::nn::{Layer, Model};
use radiograd::onnx::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use radiograd::onnx::{self, OnnxError, Pixels};
use radiograd::store::ParamStore;

/// Every kind of layer and join. The names try to be in the way of those that the file has.
const EVERYTHING: &str = "initout-input=conv6k3x5s2x1p1x2d1x2g1-bn-lrelu0.2-pool3s2p1-initin-\
    logits=[conv6nb-bn-elu0.5-conv6k1]+-relu-2x[bn-tanh-conv2k1]++-[conv4k2s2nb]+[conv4k4s2p1-bn]-sigmoid-dropout-\
    avgpool3s1p1-conv8g2-softmax-adaptive2x4-logits.weight=adaptive6x10-normalise=adaptive3x2-flatten-bn-dense9nb-\
    dropout0.1-tanh-input.weight=dense1zb-[dropout]";

const PLAIN: Pixels<'static> = Pixels { mean: &[0.5], std: &[0.25], inside: false };

fn model(text: &str, size: usize, classes: usize) -> (Model, ParamStore) {
    let model = Model::new(text, [1, size, size], classes).unwrap_or_else(|e| panic!("{text}: {e}"));
    let mut store = ParamStore::new();
    model.init(&mut store, 3);
    (model, store)
}

fn exported(model: &Model, store: &ParamStore) -> ModelProto {
    let proto = onnx::export(model, store, PLAIN, &BTreeMap::new()).expect("every network can be written");
    let bytes = onnx::to_bytes(&proto).expect("small enough");
    drop(proto);
    ModelProto::decode(bytes.as_slice()).expect("a message")
}

fn floats(tensor: &TensorProto) -> Vec<f32> {
    assert_eq!((tensor.data_type, tensor.raw_data.len() % 4), (TensorProto::FLOAT, 0), "{}", tensor.name);
    tensor.raw_data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The axes of a value; the free one as its name.
fn axes(value: &ValueInfoProto) -> Vec<String> {
    let tensor = value.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()).expect("a tensor");
    assert_eq!(tensor.elem_type, TensorProto::FLOAT);
    let dims = tensor.shape.iter().flat_map(|s| &s.dim);
    dims.map(|d| d.dim_param.clone().unwrap_or_else(|| d.dim_value.unwrap_or(-1).to_string())).collect()
}

fn node<'a>(graph: &'a GraphProto, name: &str) -> &'a NodeProto {
    graph.node.iter().find(|n| n.name == name).unwrap_or_else(|| panic!("no node {name}"))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> &'a AttributeProto {
    let found = node.attribute.iter().find(|a| a.name == name);
    found.unwrap_or_else(|| panic!("{} has no attribute {name}", node.name))
}

/// What holds for every file: names, order, weights, shapes.
fn check(model: &Model, store: &ParamStore) -> GraphProto {
    let text = model.text();
    let proto = exported(model, store);
    assert_eq!((proto.ir_version, proto.opset_import.len()), (onnx::IR_VERSION, 1));
    assert_eq!((proto.opset_import[0].domain.as_str(), proto.opset_import[0].version), ("", onnx::OPSET));
    let graph = proto.graph.expect("a graph");
    let [c, h, w] = model.input();
    assert_eq!((graph.input.len(), graph.input[0].name.as_str()), (1, "input"));
    assert_eq!(axes(&graph.input[0]), ["N".to_owned(), c.to_string(), h.to_string(), w.to_string()]);
    assert_eq!((graph.output.len(), graph.output[0].name.as_str()), (1, "logits"));
    assert_eq!(axes(&graph.output[0]), ["N".to_owned(), model.outputs().to_string()]);

    let mut known: HashSet<&str> = HashSet::from(["input"]);
    for tensor in &graph.initializer {
        assert!(known.insert(&tensor.name), "{text}: two values {}", tensor.name);
    }
    let mut read = HashSet::new();
    let mut names = HashSet::new();
    for node in &graph.node {
        assert!(names.insert(node.name.as_str()) && !node.name.is_empty(), "{text}: two nodes {}", node.name);
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{text}: {} reads {input} before it is there", node.name);
            read.insert(input.as_str());
        }
        for output in &node.output {
            assert!(known.insert(output), "{text}: two values {output}");
        }
    }
    read.insert("logits");
    assert!(known.contains("logits"), "{text}: nothing gives logits");
    assert_eq!(known.difference(&read).collect::<Vec<_>>(), Vec::<&&str>::new(), "{text}: nobody reads these");

    // A node for every layer that computes, with the planned shape.
    let silent = |a: &Action| matches!(a, Action::Layer(Layer::Dropout { .. }));
    for step in model.steps() {
        assert_eq!(names.contains(step.name.as_str()), !silent(&step.action), "{text}: {}", step.name);
        let output = format!("{}/output", step.name);
        if let Some(info) = graph.value_info.iter().find(|v| v.name == output) {
            let planned: Vec<String> = step.output.iter().map(ToString::to_string).collect();
            assert_eq!(axes(info)[1..], planned, "{text}: {output}");
        } else {
            assert!(silent(&step.action) || !known.contains(output.as_str()), "{text}: {output} has no shape");
        }
    }
    // The parameters as the state_dict has them; what else is constant belongs to adaptive pools.
    let (params, others): (Vec<_>, Vec<_>) = graph.initializer.iter().partition(|t| !t.name.contains('/'));
    let names: BTreeSet<&str> = params.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, store.params().iter().map(|p| p.name.as_str()).collect(), "{text}");
    for param in store.params() {
        let tensor = params.iter().find(|t| t.name == param.name).expect("it was there");
        let dims: Vec<i64> = param.view.spec.shape.iter().map(|&d| d as i64).collect();
        assert_eq!(tensor.dims, dims, "{text}: {}", param.name);
        assert!(floats(tensor) == store.value(param), "{text}: {} has other values", param.name);
    }
    for tensor in others {
        assert!(tensor.name.ends_with("/rows") || tensor.name.ends_with("/columns"), "{text}: {}", tensor.name);
    }
    graph
}

#[test]
fn every_named_network_is_a_sound_graph() {
    for name in NAMES {
        // Small images, but large enough for AlexNet's pools.
        let (model, store) = model(name, 64, 3);
        let graph = check(&model, &store);
        assert_eq!(graph.name, name);
        let convolutions = graph.node.iter().filter(|n| n.op_type == "Conv").count();
        assert_eq!(convolutions, model.conv_layers(), "{name}");
    }
}

#[test]
fn every_kind_of_layer_has_its_operator() {
    let (model, store) = model(EVERYTHING, 23, 2);
    let graph = check(&model, &store);
    let ops: Vec<&str> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
    let expected = "Conv BatchNormalization LeakyRelu MaxPool Conv BatchNormalization Elu Conv Add Relu \
        BatchNormalization Tanh Conv Concat BatchNormalization Tanh Conv Concat Conv Conv BatchNormalization Add Sigmoid \
        AveragePool Conv Softmax MatMul MatMul MatMul MatMul AveragePool Flatten BatchNormalization Gemm Tanh Gemm";
    // 23x23 -> 12x19 -> 6x10 -> 3x5 pixels; 3x5 to 2x4 has windows that overlap, 2x4 to 6x10 repeats, 6x10 to 3x2 divides.
    assert_eq!(ops, expected.split_whitespace().collect::<Vec<_>>());

    let ints = |node: &NodeProto, name: &str| {
        let a = attribute(node, name);
        assert_eq!(a.r#type, AttributeProto::INTS, "{name}");
        a.ints.clone()
    };
    let int = |node: &NodeProto, name: &str| {
        let a = attribute(node, name);
        assert_eq!(a.r#type, AttributeProto::INT, "{name}");
        a.i
    };
    let conv = node(&graph, "input");
    assert_eq!(conv.input, ["input", "input.weight", "input.bias"]);
    assert_eq!((ints(conv, "kernel_shape"), ints(conv, "strides")), (vec![3, 5], vec![2, 1]));
    assert_eq!((ints(conv, "dilations"), ints(conv, "pads")), (vec![1, 2], vec![1, 2, 1, 2]));
    assert_eq!(int(node(&graph, "conv5"), "group"), Some(2));
    assert_eq!(node(&graph, "logits.conv1").input.len(), 2, "no bias");
    let pool = node(&graph, "pool1");
    assert_eq!(
        (ints(pool, "kernel_shape"), ints(pool, "strides"), ints(pool, "pads")),
        (vec![3, 3], vec![2, 2], vec![1; 4])
    );
    assert_eq!(int(node(&graph, "avgpool1"), "count_include_pad"), Some(1));
    for (name, alpha) in [("lrelu1", 0.2), ("logits.elu1", 0.5)] {
        let a = attribute(node(&graph, name), "alpha");
        assert_eq!((a.r#type, a.f), (AttributeProto::FLOAT, Some(alpha)));
    }
    assert_eq!(attribute(node(&graph, "bn1"), "epsilon").f, Some(1e-5));
    let concat = node(&graph, "concat1");
    assert_eq!(concat.input[1], "conv1/output", "what a dense block adds comes last");
    assert_eq!(ints(node(&graph, "normalise"), "kernel_shape"), [2, 5]);
    for (name, dims) in [("adaptive1/rows", [2, 3]), ("adaptive1/columns", [5, 4]), ("logits.weight/columns", [4, 10])]
    {
        let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(tensor.dims, dims, "{name}");
    }
    assert_eq!(node(&graph, "input.weight").output, ["logits"], "the dropout behind it leaves no trace");
    assert_eq!(node(&graph, "dense1").input.len(), 2, "no bias");
    assert_eq!(int(node(&graph, "dense1"), "transB"), Some(1));
}

#[test]
fn pixels_are_normalised_inside() {
    let model = Model::new("conv2-gap-flatten-dense2", [3, 8, 8], 2).expect("a network");
    let mut store = ParamStore::new();
    model.init(&mut store, 0);
    let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let pixels = Pixels { mean: &mean, std: &std, inside: true };
    let proto = onnx::export(&model, &store, pixels, &BTreeMap::new()).expect("a network");
    let graph = proto.graph.expect("a graph");
    let first: Vec<(&str, &[String])> = graph.node[..3].iter().map(|n| (n.op_type.as_str(), &n.input[..])).collect();
    assert_eq!(first.iter().map(|n| n.0).collect::<Vec<_>>(), ["Mul", "Add", "Conv"]);
    assert_eq!((first[0].1[0].as_str(), &first[1].1[0]), ("input", &graph.node[0].output[0]));
    assert_eq!(first[2].1[0], graph.node[1].output[0]);
    let constant = |name: &str| {
        let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(tensor.dims, [1, 3, 1, 1]);
        floats(tensor)
    };
    let (factor, offset) = (constant(&first[0].1[1]), constant(&first[1].1[1]));
    for c in 0..3 {
        for pixel in [0.0, 7.0, 128.0, 255.0_f32] {
            let (got, want) = (pixel * factor[c] + offset[c], (pixel / 255.0 - mean[c]) / std[c]);
            assert!((got - want).abs() < 1e-5, "{pixel}: {got} against {want}");
        }
    }
}

#[test]
fn weights_of_another_network_are_refused_with_the_layer() {
    let (model, _) = model("conv4-relu-gap-flatten-dense2", 8, 2);
    let mut store = ParamStore::new();
    Model::new("conv4-relu-gap-flatten-dense3", [1, 8, 8], 3).expect("a network").init(&mut store, 0);
    let error = onnx::export(&model, &store, PLAIN, &BTreeMap::new()).expect_err("another network");
    assert!(matches!(&error, OnnxError::Parameter { layer, .. } if layer == "dense1"), "{error}");
    assert!(error.to_string().contains("dense1.weight") && error.to_string().contains("[2, 4]"), "{error}");
}

/// The metadata and the graph of a file.
fn read(lab: &Lab, file: &str) -> (BTreeMap<String, String>, GraphProto) {
    let proto = ModelProto::decode(fs::read(lab.path(file)).expect("a file").as_slice()).expect("a message");
    let metadata = proto.metadata_props.into_iter().map(|p| (p.key, p.value)).collect();
    (metadata, proto.graph.expect("a graph"))
}

#[test]
fn the_command_writes_runs_and_weights() {
    let lab = Lab::new();
    lab.succeeds(&training(&[("--model", "conv4-bn-relu-pool-flatten-dense2"), ("--out", "run")]));
    let out = lab.output(&["export", "--run", "run", "--out", "net.onnx", "--json"], &[]);
    assert_eq!(out.status.code(), Some(0), "{}", program::text(&out.stderr));
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("one document");
    assert_eq!((&report["nodes"], &report["outputs"]), (&6.into(), &2.into()), "{report}");
    assert_eq!((&report["format"], &report["input"]), (&"onnx".into(), &serde_json::json!([1, 16, 16])), "{report}");
    assert_eq!(report["bytes"], fs::metadata(lab.path("net.onnx")).expect("a file").len(), "{report}");

    let (metadata, graph) = read(&lab, "net.onnx");
    for (key, value) in [
        ("classes", "[\"NORMAL\",\"PNEUMONIA\"]"),
        ("size", "16"),
        ("channels", "1"),
        ("model", "conv4-bn-relu-pool-flatten-dense2"),
        ("notice", "Software for study, not a medical device."),
    ] {
        assert_eq!(metadata.get(&format!("radiograd.{key}")).map(String::as_str), Some(value));
    }
    let config = fs::read_to_string(lab.path("run/config.toml")).expect("a config");
    assert!(config.contains(&format!("mean = {}", metadata["radiograd.mean"])), "{config}{metadata:?}");

    // The weights alone are the run's best, and lead to the same graph.
    lab.succeeds(&["export", "--run", "run", "--out", "net.safetensors"]);
    let [best, net] = ["run/best.safetensors", "net.safetensors"].map(|f| fs::read(lab.path(f)).expect("a file"));
    assert!(best == net, "the copy differs from the run's best weights");
    let model = ["--model", "conv4-bn-relu-pool-flatten-dense2", "--size", "16"];
    let weights = ["export", "--weights", "net.safetensors", "--pixels", "--out", "other.onnx"];
    lab.succeeds(&[&weights[..], &model].concat());
    let (_, other) = read(&lab, "other.onnx");
    assert_eq!(other.node.len(), graph.node.len() + 2);
    assert_eq!(other.initializer[2..], graph.initializer);
    // Weights without a run folder become a file that PyTorch's state_dict would have, counters included.
    lab.succeeds(&[&["export", "--weights", "net.safetensors", "--out", "b.safetensors"][..], &model].concat());
    let file = radiograd::weights::load(lab.path("b.safetensors")).expect("weights");
    let names: Vec<&str> = file.tensors.iter().map(|t| t.name.as_str()).collect();
    assert!(names.contains(&"conv1.weight") && names.contains(&"bn1.num_batches_tracked"), "{names:?}");
    assert_eq!(names.len(), 9, "{names:?}");
}

#[test]
fn what_cannot_be_exported_is_said_in_one_line() {
    let lab = Lab::new();
    lab.run("run");
    lab.write("notes.txt", "no weights");
    let fails = |args: &[&str], words: &[&str]| lab.fails(&[&["export"], args].concat(), words);
    let run = |rest: &[&str], words: &[&str]| fails(&[&["--run", "run", "--out"], rest].concat(), words);
    run(&["net.pt"], &["--out", "net.pt", ".onnx or .safetensors"]);
    run(&["net"], &["net", ".onnx or .safetensors"]);
    run(&["missing/net.onnx"], &["cannot write", "missing"]);
    run(&["run/last.safetensors"], &["--out", "run folder"]);
    run(&["run/best.safetensors"], &["--out", "run folder"]);
    run(&["net.safetensors", "--pixels"], &["--pixels", ".onnx"]);
    fails(&["--run", "ok", "--out", "net.onnx"], &["ok", "train first"]);
    let best = "run/best.safetensors";
    let weights = |model: &str, file: &str, rest: &[&str], words: &[&str]| {
        fails(&[&["--model", model, "--weights", file, "--out", "net.onnx"], rest].concat(), words);
    };
    weights(MODEL, best, &["--size", "32"], &["dense1.weight", "[2, 1024]", "[2, 256]"]);
    weights(MODEL, best, &["--size", "16", "--channels", "3"], &["conv1.weight"]);
    weights(MODEL, best, &["--size", "16", "--classes", "3"], &["layer 5", "3 classes"]);
    weights(MODEL, best, &["--size", "16", "--classes", "0"], &["0 classes"]);
    weights(MODEL, best, &["--size", "0"], &["--size"]);
    weights(MODEL, best, &["--size", "16", "--mean", "0.1,0.2"], &["mean", "2 values"]);
    weights(MODEL, "notes.txt", &["--size", "16"], &["notes.txt", "safetensors"]);
    weights("cnn9", best, &["--size", "16"], &["cnn9"]);
    lab.succeeds(&["export", "--run", "run", "--out", "own.safetensors"]);
    let own = ["--model", MODEL, "--weights", "own.safetensors", "--size", "16", "--out", "own.safetensors"];
    fails(&own, &["own.safetensors", "another file"]);
    for args in [
        &["--out", "net.onnx"][..],
        &["--run", "run"],
        &["--run", "run", "--weights", best, "--out", "net.onnx"],
        &["--run", "run", "--size", "8", "--out", "net.onnx"],
        &["--model", MODEL, "--weights", best, "--out", "net.onnx"],
    ] {
        let out = lab.output(&[&["export"], args].concat(), &[]);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {}", program::text(&out.stderr));
    }
}
