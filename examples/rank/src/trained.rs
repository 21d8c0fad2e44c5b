//! Models that `examples/train` has trained.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::f16;
use longseq::Sdim;
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
            if x > 0.0 { x } else { self.slope * x }
        });
        let out: f32 = hidden.zip(&self.last).map(|(x, weight)| x * weight).sum();
        out + self.last_bias + self.bias[item as usize]
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Reads the models of a file that was trained on this log, for requests of users with at least `min_events` events.
///
/// # Errors
/// If the file cannot be read, is of another log, knows what the requests ask for, or does not have what its models need.
pub(crate) fn load(path: &Path, log: &Log, min_events: usize) -> Outcome<Vec<Model>> {
    let in_file = |error: Box<dyn std::error::Error>| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| in_file(error.into()))?;
    Ok(read(&bytes, log, min_events).map_err(in_file)?)
}

fn read(bytes: &[u8], log: &Log, min_events: usize) -> Outcome<Vec<Model>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let header = Header(header.metadata().clone().unwrap_or_default());
    header.check(log, min_events)?;
    let (width, newest) = (header.number("width", 256)?, header.number("history", 1_000_000)?);
    let tensors = SafeTensors::deserialize(bytes)?;
    let trained: Vec<&str> = header.text("systems").split(',').collect();
    let shown = SYSTEMS.into_iter().filter(|(_, key)| trained.contains(key));
    let models: Vec<Model> = shown
        .map(|(method, key)| {
            SystemWeights { tensors: &tensors, key, items: log.items, width }.model(method, newest)
        })
        .collect::<Outcome<_>>()?;
    if models.is_empty() {
        let known = SYSTEMS.map(|(_, key)| key).join(", ");
        return Err(format!("expected models of {known}, got {:?}", header.text("systems")).into());
    }
    Ok(models)
}

/// What a file says of its models.
struct Header(HashMap<String, String>);

impl Header {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// A number of at least 1.
    fn number(&self, key: &str, most: usize) -> Outcome<usize> {
        match self.text(key).parse() {
            Ok(number) if (1..=most).contains(&number) => Ok(number),
            _ => Err(format!(
                "{key} in its header: expected a number from 1 to {most}, got {:?}",
                self.text(key)
            )
            .into()),
        }
    }

    /// Whether the models are of this log, and do not know the last events that requests ask for.
    fn check(&self, log: &Log, min_events: usize) -> Outcome<()> {
        if self.text("format") != FORMAT {
            let got = self.text("format");
            return Err(format!("expected a file of examples/train (format {FORMAT}), got {got:?}").into());
        }
        if self.text("fingerprint") != format!("{:016x}", log.fingerprint()) {
            let (name, events, items) = (self.text("log"), self.text("events"), self.text("items"));
            return Err(format!(
                "its models are of another log, or of one whose rows are in another order: {name}, {events} events, {items} items; here are \
                 {} and {}",
                log.events(),
                log.items
            )
            .into());
        }
        let held_out = self.number("min_events", usize::MAX)?;
        let is_known = |events: &Vec<u32>| (min_events.max(2)..held_out).contains(&events.len());
        match log.users.iter().filter(|events| is_known(events)).count() {
            0 => Ok(()),
            users => Err(format!(
                "its models were trained with all events of {users} users who have fewer than {held_out}: rank with --min-events {held_out}"
            )
            .into()),
        }
    }
}

/// The weights of one system.
struct SystemWeights<'a> {
    tensors: &'a SafeTensors<'a>,
    key: &'static str,
    items: usize,
    width: usize,
}

impl SystemWeights<'_> {
    fn model(&self, method: Method, newest: usize) -> Outcome<Model> {
        let (items, width) = (self.items, self.width);
        let full = self.of_length("items", items * width)?;
        let mut tables = Tables { items, width, full, ..Tables::default() };
        let (mut rotations, mut network) = (None, None);
        match method {
            Method::TargetAttention => {
                let weight = self.of_length("interest.query.weight", width * width)?;
                tables.queries = Some(projected(&tables.full, &weight, width));
            }
            Method::Din => network = Some(self.network()?),
            Method::Sdim => {
                let op = Sdim::new(width);
                rotations = Some(self.of_length("interest.rotations", width * op.groups * op.bits)?);
            }
            Method::Decoupled => {
                (tables.attention, tables.attention_width) = self.rows("interest.attention", items)?;
            }
            Method::LastMean => {}
        }
        let (first_bias, units) = self.rows("first.bias", 1)?;
        let tower = Tower {
            first: self.of_length("first.weight", units * 3 * width)?,
            first_bias,
            slope: self.of_length("slope.weight", 1)?[0],
            last: self.of_length("last.weight", units)?,
            last_bias: self.of_length("last.bias", 1)?[0],
            bias: self.of_length("bias", items)?,
        };
        Ok(Model { method, newest, tables, rotations, network, tower })
    }

    fn network(&self) -> Outcome<Network> {
        let (bias, units) = self.rows("interest.hidden.0.bias", 1)?;
        Ok(Network {
            weight: self.of_length("interest.hidden.0.weight", units * 4 * self.width)?,
            alpha: self.of_length("interest.hidden.0.alpha", 1)?,
            output_weight: self.of_length("interest.output.weight", units)?,
            output_bias: self.of_length("interest.output.bias", 1)?,
            bias,
        })
    }

    /// A weight of so many numbers.
    fn of_length(&self, name: &str, length: usize) -> Outcome<Vec<f32>> {
        let numbers = self.numbers(name)?;
        match numbers.len() {
            found if found == length => Ok(numbers),
            found => Err(format!("{}.{name}: expected {length} numbers, got {found}", self.key).into()),
        }
    }

    /// A weight of so many rows, and their width.
    fn rows(&self, name: &str, rows: usize) -> Outcome<(Vec<f32>, usize)> {
        let numbers = self.numbers(name)?;
        let width = numbers.len() / rows.max(1);
        match numbers.len() {
            found if found > 0 && found == rows * width => Ok((numbers, width)),
            found => Err(format!("{}.{name}: expected {rows} rows, got {found} numbers", self.key).into()),
        }
    }

    fn numbers(&self, name: &str) -> Outcome<Vec<f32>> {
        let tensor = self.tensors.tensor(&format!("{}.{name}", self.key))?;
        let bytes = tensor.data();
        let numbers: Vec<f32> = match tensor.dtype() {
            Dtype::F16 => bytes.chunks_exact(2).map(|x| f16::from_le_bytes([x[0], x[1]]).to_f32()).collect(),
            Dtype::F32 => {
                bytes.chunks_exact(4).map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]])).collect()
            }
            other => {
                return Err(format!("{}.{name}: expected f16 or f32, got {other:?}", self.key).into());
            }
        };
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(at) => {
                Err(format!("{}.{name}: expected finite numbers, got {} at {at}", self.key, numbers[at])
                    .into())
            }
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

    fn models(bytes: &[u8]) -> Outcome<Vec<Model>> {
        read(bytes, &log(ITEMS), 2)
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
        safetensors::serialize(views, Some(header(&[("systems", system)]))).unwrap()
    }

    /// A header with some other values.
    fn header(others: &[(&str, &str)]) -> HashMap<String, String> {
        let fingerprint = format!("{:016x}", log(ITEMS).fingerprint());
        let values = [
            ("format", FORMAT),
            ("log", "a log"),
            ("fingerprint", &fingerprint),
            ("min_events", "2"),
            ("width", "4"),
            ("history", "2"),
        ];
        values.iter().chain(others).map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
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
        let models = models(&file("target-attention", &weights)).unwrap();
        let [model] = &models[..] else { panic!("one model") };
        assert_eq!((model.method, model.newest), (Method::TargetAttention, 2));

        let (history, target) = ([1, 3], 4);
        let backend = Cpu::new();
        let ranker = Ranker::trained(&backend, model, 2).unwrap();
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
        let row = model.tables.row(target);
        let products = row.iter().zip(&pooled).map(|(q, u)| q * u);
        let input: Vec<f32> = row.iter().chain(&pooled).copied().chain(products).collect();
        let weight = |name: &str| &weights[name];
        let mut expected = weight("last.bias")[0] + weight("bias")[target as usize];
        for (unit, first) in weight("first.weight").chunks(3 * D).enumerate() {
            let x = dot(first, &input) + weight("first.bias")[unit];
            let slope = if x > 0.0 { 1.0 } else { weight("slope.weight")[0] };
            expected += slope * x * weight("last.weight")[unit];
        }
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
            let models = models(&bytes).unwrap();
            let backend = Cpu::new();
            let ranker = Ranker::trained(&backend, &models[0], 3).unwrap();
            let check = ranker.check(models[0].method, &Batch::new(&requests).unwrap()).unwrap();
            assert!(check.error < 1e-5, "{system}: {}", check.error);
        }
    }

    #[track_caller]
    fn assert_refused(bytes: &[u8], expected: &str) {
        let error = models(bytes).err().expect("an error").to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn files_that_are_not_of_this_log_are_refused() {
        let sdim = weights(&[&TOWER[..], &[("interest.rotations", D * 16 * 3)]].concat());
        assert!(models(&file("sdim", &sdim)).is_ok());
        let with = |others: &[(&str, &str)]| {
            let tensors: [(String, TensorView<'_>); 0] = [];
            safetensors::serialize(tensors, Some(header(others))).unwrap()
        };
        assert_refused(&with(&[("format", "another")]), "expected a file of examples/train");
        assert_refused(&with(&[("fingerprint", "0")]), "of another log");
        assert_refused(&with(&[("min_events", "4")]), "rank with --min-events 4");
        assert_refused(&with(&[("width", "0")]), "width in its header: expected a number from 1 to 256");
        assert_refused(&with(&[("history", "many")]), "history in its header");
        assert_refused(&with(&[("systems", "mean,tin")]), "got \"mean,tin\"");
        assert_refused(b"no safetensors", "");
    }

    #[test]
    fn weights_that_no_model_has_are_refused() {
        assert_refused(&file("sdim", &weights(&TOWER)), "rotations");
        let short = weights(&[&[("items", 3)][..], &TOWER[1..]].concat());
        assert_refused(&file("dare", &short), "dare.items: expected 20 numbers, got 3");
        let uneven = weights(&[&TOWER[..], &[("interest.attention", 2 * ITEMS + 1)]].concat());
        assert_refused(&file("dare", &uneven), "dare.interest.attention: expected 5 rows, got 11 numbers");
        let mut infinite = weights(&TOWER);
        infinite.get_mut("items").unwrap()[7] = f32::INFINITY;
        assert_refused(&file("dare", &infinite), "dare.items: expected finite numbers, got inf at 7");
    }

    #[test]
    fn the_models_in_the_repository_are_of_the_bundled_log() {
        let log = Log::movielens().unwrap();
        let methods: Vec<Method> =
            load(&bundled(), &log, 5).unwrap().iter().map(|model| model.method).collect();
        assert_eq!(methods, SYSTEMS.map(|(method, _)| method));
    }
}
