//! Models that `examples/train` has trained.

use std::path::{Path, PathBuf};

use half::f16;
use safetensors::{Dtype, SafeTensors};

use crate::Outcome;
use crate::data::Log;
use crate::embeddings::Tables;
use crate::method::Method;

/// What `examples/train` writes.
const FORMAT: &str = "longseq-train-1";
/// The methods, and the names of their systems in a file.
const SYSTEMS: [(Method, &str); 4] = [
    (Method::TargetAttention, "target-attention"),
    (Method::Din, "din"),
    (Method::Sdim, "sdim"),
    (Method::Decoupled, "dare"),
];

/// The models in the repository, of the bundled log.
pub(crate) fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/trained/movielens.safetensors")
}

/// A model: what it reads of items, what its method has, and the tower that turns an interest into log-odds.
pub(crate) struct Model {
    pub(crate) method: Method,
    /// How many of the newest behaviours it was trained with.
    pub(crate) newest: usize,
    pub(crate) tables: Tables,
    /// SDIM's, `[d, G, τ]`.
    pub(crate) rotations: Option<Vec<f32>>,
    /// DIN's.
    pub(crate) network: Option<Network>,
    pub(crate) tower: Tower,
}

/// DIN's network: one hidden layer with PReLU.
pub(crate) struct Network {
    /// `[h, 4d]`.
    pub(crate) weight: Vec<f32>,
    /// `[h]`.
    pub(crate) bias: Vec<f32>,
    /// `[1]`.
    pub(crate) alpha: Vec<f32>,
    /// `[1, h]`.
    pub(crate) output_weight: Vec<f32>,
    /// `[1]`.
    pub(crate) output_bias: Vec<f32>,
}

/// What comes after the pooling: `last(PReLU(first([q ; u ; q ⊙ u]))) + bias[item]`, with `q` the candidate's embedding and `u` the
/// interest.
pub(crate) struct Tower {
    /// `[h, 3d]`.
    first: Vec<f32>,
    /// `[h]`.
    first_bias: Vec<f32>,
    slope: f32,
    /// `[h]`.
    last: Vec<f32>,
    last_bias: f32,
    /// `[items]`.
    bias: Vec<f32>,
}

impl Tower {
    /// The log-odds of a click.
    pub(crate) fn score(&self, item: u32, target: &[f32], interest: &[f32]) -> f32 {
        let d = target.len();
        let products: Vec<f32> = target.iter().zip(interest).map(|(q, u)| q * u).collect();
        let hidden = self.first.chunks_exact(3 * d).zip(&self.first_bias).map(|(row, bias)| {
            let x =
                dot(&row[..d], target) + dot(&row[d..2 * d], interest) + dot(&row[2 * d..], &products) + bias;
            x.max(0.0) + self.slope * x.min(0.0)
        });
        let out: f32 = hidden.zip(&self.last).map(|(x, weight)| x * weight).sum();
        out + self.last_bias + self.bias[item as usize]
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Reads the models of a file that was trained on this log.
///
/// # Errors
/// If the file cannot be read, is of another log, or does not have what its models need.
pub(crate) fn load(path: &Path, log: &Log) -> Outcome<Vec<Model>> {
    let in_file = |error: Box<dyn std::error::Error>| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| in_file(error.into()))?;
    Ok(read(&bytes, log).map_err(in_file)?)
}

fn read(bytes: &[u8], log: &Log) -> Outcome<Vec<Model>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let header = header.metadata().clone().unwrap_or_default();
    let text = |key: &str| header.get(key).map_or("", String::as_str);
    if text("format") != FORMAT {
        return Err(
            format!("expected a file of examples/train (format {FORMAT}), got {:?}", text("format")).into()
        );
    }
    for (key, here) in [("events", log.events()), ("items", log.items)] {
        if text(key) != here.to_string() {
            return Err(
                format!("its models are of a log with {} {key}, and this log has {here}", text(key)).into()
            );
        }
    }
    let [width, newest] = [number(text("width"))?, number(text("history"))?];
    let tensors = SafeTensors::deserialize(bytes)?;
    let models =
        SYSTEMS.into_iter().filter(|(_, key)| text("systems").split(',').any(|system| system == *key));
    models
        .map(|(method, key)| File { tensors: &tensors, key, items: log.items, width }.model(method, newest))
        .collect()
}

fn number(text: &str) -> Outcome<usize> {
    Ok(text.parse().map_err(|_| format!("expected a number in its header, got {text:?}"))?)
}

/// The weights of one system.
struct File<'a> {
    tensors: &'a SafeTensors<'a>,
    key: &'static str,
    items: usize,
    width: usize,
}

impl File<'_> {
    fn model(&self, method: Method, newest: usize) -> Outcome<Model> {
        let (items, width) = (self.items, self.width);
        let full = self.get("items", items * width)?;
        let mut tables = Tables { items, width, full, ..Tables::default() };
        let (mut rotations, mut network) = (None, None);
        match method {
            Method::TargetAttention => {
                let weight = self.get("interest.query.weight", width * width)?;
                tables.queries = Some(projected(&tables.full, &weight, width));
            }
            Method::Din => network = Some(self.network()?),
            Method::Sdim => rotations = Some(self.all("interest.rotations")?),
            Method::Decoupled => {
                tables.attention = self.all("interest.attention")?;
                tables.attention_width = tables.attention.len() / items.max(1);
            }
            Method::LastMean => {}
        }
        let first_bias = self.all("first.bias")?;
        let units = first_bias.len();
        let tower = Tower {
            first: self.get("first.weight", units * 3 * width)?,
            first_bias,
            slope: self.get("slope.weight", 1)?[0],
            last: self.get("last.weight", units)?,
            last_bias: self.get("last.bias", 1)?[0],
            bias: self.get("bias", items)?,
        };
        Ok(Model { method, newest, tables, rotations, network, tower })
    }

    fn network(&self) -> Outcome<Network> {
        let bias = self.all("interest.hidden.0.bias")?;
        Ok(Network {
            weight: self.get("interest.hidden.0.weight", bias.len() * 4 * self.width)?,
            alpha: self.get("interest.hidden.0.alpha", 1)?,
            output_weight: self.get("interest.output.weight", bias.len())?,
            output_bias: self.get("interest.output.bias", 1)?,
            bias,
        })
    }

    /// A weight of so many numbers.
    fn get(&self, name: &str, length: usize) -> Outcome<Vec<f32>> {
        let numbers = self.all(name)?;
        match numbers.len() {
            found if found == length => Ok(numbers),
            found => Err(format!("{}.{name}: expected {length} numbers, got {found}", self.key).into()),
        }
    }

    fn all(&self, name: &str) -> Outcome<Vec<f32>> {
        let tensor = self.tensors.tensor(&format!("{}.{name}", self.key))?;
        let bytes = tensor.data();
        match tensor.dtype() {
            Dtype::F16 => {
                Ok(bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32()).collect())
            }
            Dtype::F32 => {
                Ok(bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect())
            }
            other => Err(format!("{}.{name}: expected f16 or f32, got {other:?}", self.key).into()),
        }
    }
}

/// `W·x` of each row `x`, for a square matrix.
fn projected(rows: &[f32], weight: &[f32], width: usize) -> Vec<f32> {
    let project = |row| weight.chunks_exact(width).map(move |weight| dot(weight, row));
    rows.chunks_exact(width).flat_map(project).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use longseq::Cpu;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::protocol::{Batch, Request, Seeded};
    use crate::ranker::Ranker;

    const ITEMS: usize = 5;
    const D: usize = 4;

    fn log(items: usize) -> Log {
        Log { name: "a log".into(), users: vec![vec![0, 1, 2]], items }
    }

    /// Weights of these names and lengths.
    fn weights(named: &[(&str, usize)]) -> HashMap<String, Vec<f32>> {
        let mut random = Seeded::new(3);
        let mut draw =
            |length: usize| (0..length).map(|_| random.below(2001) as f32 / 1000.0 - 1.0).collect();
        named.iter().map(|&(name, length)| (name.to_owned(), draw(length))).collect()
    }

    fn file(system: &str, weights: &HashMap<String, Vec<f32>>) -> Vec<u8> {
        let bytes: Vec<(String, Vec<u8>)> = weights
            .iter()
            .map(|(name, x)| (format!("{system}.{name}"), x.iter().flat_map(|x| x.to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(name, bytes)| {
            (name.clone(), TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).unwrap())
        });
        let header = [
            ("format", FORMAT),
            ("systems", system),
            ("events", "3"),
            ("items", "5"),
            ("width", "4"),
            ("history", "2"),
        ];
        let header = header.map(|(key, value)| (key.to_owned(), value.to_owned()));
        safetensors::serialize(views, Some(header.into())).unwrap()
    }

    const TOWER: [(&str, usize); 7] = [
        ("items", ITEMS * D),
        ("bias", ITEMS),
        ("first.weight", 3 * 3 * D),
        ("first.bias", 3),
        ("slope.weight", 1),
        ("last.weight", 3),
        ("last.bias", 1),
    ];

    #[test]
    fn projected_queries_give_the_scores_of_the_model() {
        let weights = weights(&[&TOWER[..], &[("interest.query.weight", D * D)]].concat());
        let models = read(&file("target-attention", &weights), &log(ITEMS)).unwrap();
        let [model] = &models[..] else { panic!("one model") };
        assert_eq!((model.method, model.newest), (Method::TargetAttention, 2));

        let (history, target) = ([1, 3], 4);
        let backend = Cpu::new();
        let ranker = Ranker::trained(&backend, model).unwrap();
        let batch = Batch::new(&[Request { history: history.to_vec(), candidates: vec![target] }]).unwrap();
        let tables = ranker.bucket_tables(&batch).unwrap();
        let got = ranker.scores(model.method, &batch, &tables).unwrap();
        assert!(ranker.check(model.method, &batch).unwrap().error < 1e-5);

        let weight = &weights["interest.query.weight"];
        let query: Vec<f32> = weight.chunks(D).map(|row| dot(row, model.tables.row(target))).collect();
        let scores = history.map(|item| (dot(&query, model.tables.row(item)) / 2.0).exp());
        let mut pooled = [0.0; D];
        for (item, score) in history.into_iter().zip(scores) {
            let share = score / (scores[0] + scores[1]);
            pooled.iter_mut().zip(model.tables.row(item)).for_each(|(sum, x)| *sum += x * share);
        }
        let expected = model.tower.score(target, model.tables.row(target), &pooled);
        assert!((got[0] - expected).abs() < 1e-5, "{got:?}, {expected}");
    }

    #[test]
    fn every_system_is_read_and_checked() {
        let systems: [(&str, &[(&str, usize)]); 3] = [
            (
                "din",
                &[
                    ("interest.hidden.0.weight", 6 * 4 * D),
                    ("interest.hidden.0.bias", 6),
                    ("interest.hidden.0.alpha", 1),
                    ("interest.output.weight", 6),
                    ("interest.output.bias", 1),
                ],
            ),
            ("sdim", &[("interest.rotations", D * 16 * 3)]),
            ("dare", &[("interest.attention", ITEMS * 2)]),
        ];
        let requests = [Request { history: vec![1, 2, 1], candidates: vec![0, 4] }];
        for (system, own) in systems {
            let bytes = file(system, &weights(&[&TOWER[..], own].concat()));
            let models = read(&bytes, &log(ITEMS)).unwrap();
            let backend = Cpu::new();
            let ranker = Ranker::trained(&backend, &models[0]).unwrap();
            let check = ranker.check(models[0].method, &Batch::new(&requests).unwrap()).unwrap();
            assert!(check.error < 1e-5, "{system}: {}", check.error);
        }
    }

    #[test]
    fn files_of_other_logs_and_of_other_programs_are_refused() {
        let bytes = file("sdim", &weights(&TOWER));
        let error = |bytes: &[u8], items| match read(bytes, &log(items)) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error(&bytes, 6).contains("this log has 6"), "{}", error(&bytes, 6));
        assert!(error(&bytes, ITEMS).contains("rotations"), "{}", error(&bytes, ITEMS));
        assert!(!error(b"no safetensors", ITEMS).is_empty());
        let short = file("dare", &weights(&[&[("items", 3)][..], &TOWER[1..]].concat()));
        assert!(error(&short, ITEMS).contains("dare.items: expected 20 numbers, got 3"));
    }
}
