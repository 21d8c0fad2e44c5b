//! Layers of two stages: a search, and attention over what it kept.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use longseq::{Search, SelectedAttention, SimilarityHistogram};
use longseq_candle::layers::{
    CrossFeatures, EtaLayer, MuseLayer, MuseTensors, SelectedAttentionLayer, TwinLayer,
};
use longseq_candle::{Longseq, SearchTensor};

use crate::attention::batch;
use crate::common::{check_chosen, flat, random};
use crate::eager::{Users, wide};
use crate::layers::builder;
use crate::selected::{self, positions};

const WIDTH: usize = 4;
const NAMES: [&str; 4] = ["query.weight", "key.weight", "value.weight", "output.weight"];

fn users() -> Users {
    Users::new(&[6, 0, 3], &[2, 1, 1])
}

/// Two heads of queries, one of keys and values; two behaviours are kept.
fn op() -> SelectedAttention {
    SelectedAttention::new(3).with_heads(2, 1).with_value_width(2).with_top_k(2)
}

/// Candidates, behaviours, and the weights of [`NAMES`].
fn inputs(users: &Users) -> Result<Vec<Tensor>> {
    Ok(vec![
        random(&[users.candidates(), WIDTH], 1)?,
        random(&[users.behaviours(), WIDTH], 2)?,
        random(&[6, WIDTH], 3)?,
        random(&[3, WIDTH], 4)?,
        random(&[2, WIDTH], 5)?,
        random(&[WIDTH, 4], 6)?,
    ])
}

fn project(rows: &Tensor, weight: &Tensor, heads: usize) -> Result<Tensor> {
    rows.matmul(&weight.t()?)?.reshape((rows.dim(0)?, heads, weight.dim(0)? / heads))
}

/// Attention over these positions with projections, in candle's operations, before the output's.
fn pooled(
    users: &Users,
    kept: &[Vec<u32>],
    x: &[Tensor],
    gammas: &Tensor,
    similarities: &Tensor,
) -> Result<Tensor> {
    let (op, dtype) = (op(), x[0].dtype());
    let given = [
        project(&x[0], &x[2], 2)?,
        project(&x[1], &x[3], 1)?,
        project(&x[1], &x[4], 1)?,
        Tensor::zeros((users.behaviours(), 2), dtype, &Device::Cpu)?,
        gammas.clone(),
        similarities.to_dtype(dtype)?,
    ];
    selected::eager(&op, users, kept, &given)?.reshape((users.candidates(), 4))
}

/// The same without similarities, and the output.
fn attended(users: &Users, kept: &[Vec<u32>], x: &[Tensor]) -> Result<Tensor> {
    let gammas = Tensor::new(&[[1f64, 0.0, 0.0], [1.0, 0.0, 0.0]], &Device::Cpu)?.to_dtype(x[0].dtype())?;
    let none = Tensor::zeros((users.candidates(), 2), DType::F64, &Device::Cpu)?;
    pooled(users, kept, x, &gammas, &none)?.matmul(&x[5].t()?)
}

#[test]
fn attention_over_a_selection() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    let search = Search::dot(WIDTH).with_top_k(2);
    let kept = longseq.search(&search, &batch, SearchTensor::Rows(&x[0]), SearchTensor::Rows(&x[1]), None)?;
    let at = positions(&kept)?;
    check_chosen(
        "layer",
        &x,
        |x| {
            let layer = SelectedAttentionLayer::new(WIDTH, op(), builder(&NAMES, &x[2..]))?;
            layer.forward(&longseq, &batch, &x[0], &x[1], &kept)
        },
        |x| attended(&users, &at, x),
    )
}

#[test]
fn eta() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    let rotations = random(&[WIDTH, 40], 10)?;
    let layer = |x: &[Tensor]| {
        let names = [&NAMES[..], &["rotations"]].concat();
        let tensors = [&x[2..], &[rotations.clone()]].concat();
        EtaLayer::new(WIDTH, 40, op(), builder(&names, &tensors))
    };
    let kept = layer(&x)?.search(&longseq, &batch, &x[0], &x[1])?;
    // The signs of 40 projections that agree.
    let signs = |rows: &Tensor| wide(rows)?.matmul(&wide(&rotations)?)?.gt(0.0)?.to_vec2::<u8>();
    let (of_targets, of_history) = (signs(&x[0])?, signs(&x[1])?);
    let at = positions(&kept)?;
    let scores = kept.scores.to_vec2::<f32>()?;
    for [n, length, m, count] in users.each() {
        for candidate in m..m + count {
            let agree = |l: usize| {
                let pairs = of_targets[candidate].iter().zip(&of_history[n + l]);
                pairs.filter(|(a, b)| a == b).count()
            };
            let mut best: Vec<usize> = (0..length).collect();
            best.sort_by_key(|&l| (std::cmp::Reverse(agree(l)), l));
            best.truncate(2);
            assert_eq!(at[candidate], best.iter().map(|&l| l as u32).collect::<Vec<_>>());
            for (slot, &l) in best.iter().enumerate() {
                assert_eq!(scores[candidate][slot], agree(l) as f32);
            }
        }
    }
    check_chosen(
        "eta",
        &x,
        |x| layer(x)?.forward(&longseq, &batch, &x[0], &x[1]),
        |x| attended(&users, &at, x),
    )
}

const CROSS: CrossFeatures = CrossFeatures { features: 2, width: 3 };

/// The scores of a head of TWIN, `[M, N]`, of `f64` inputs: those of [`inputs`], then cross features, their weights and β.
fn twin_scores(x: &[Tensor], head: usize) -> Result<Tensor> {
    let queries = project(&x[0], &x[2], 2)?.narrow(1, head, 1)?.squeeze(1)?.contiguous()?;
    let keys = project(&x[1], &x[3], 1)?.squeeze(1)?;
    let scores = (queries.matmul(&keys.t()?)? * (1.0 / 3f64.sqrt()))?;
    let (weight, beta) = (x[7].get(head)?, x[8].get(head)?);
    let of_features = x[6].broadcast_mul(&weight.unsqueeze(0)?)?.sum(2)?;
    scores.broadcast_add(&of_features.broadcast_mul(&beta.unsqueeze(0)?)?.sum(1)?.unsqueeze(0)?)
}

#[test]
fn twin_with_cross_features() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let mut x = inputs(&users)?;
    x[4] = random(&[2, WIDTH + 6], 5)?;
    x.extend([random(&[users.behaviours(), 2, 3], 7)?, random(&[2, 2, 3], 8)?, random(&[2, 2], 9)?]);
    let exact: Vec<Tensor> = x.iter().map(wide).collect::<Result<_>>()?;
    // What each head keeps.
    let mut kept = Vec::new();
    for head in 0..2 {
        let scores = twin_scores(&exact, head)?.to_vec2::<f64>()?;
        let mut rows = Vec::new();
        for [n, length, m, count] in users.each() {
            for candidate in m..m + count {
                let mut best: Vec<usize> = (n..n + length).collect();
                best.sort_by(|&a, &b| scores[candidate][b].total_cmp(&scores[candidate][a]));
                rows.push(best.into_iter().take(2).map(|row| row as u32).collect::<Vec<_>>());
            }
        }
        kept.push(rows);
    }
    assert_ne!(kept[0], kept[1]);
    let names = [&NAMES[..], &["cross.weight", "cross.beta"]].concat();
    check_chosen(
        "twin",
        &x,
        |x| {
            let tensors = [&x[2..6], &x[7..]].concat();
            let layer = TwinLayer::new(WIDTH, op(), Some(CROSS), builder(&names, &tensors))?;
            layer.forward(&longseq, &batch, &x[0], &x[1], Some(&x[6]))
        },
        |x| {
            let cross = x[6].flatten_from(1)?;
            let values = Tensor::cat(&[&x[1], &cross], 1)?.matmul(&x[4].t()?)?;
            let mut heads = Vec::new();
            for (head, kept) in kept.iter().enumerate() {
                let all = twin_scores(x, head)?;
                let mut rows = Vec::new();
                for (candidate, places) in kept.iter().enumerate() {
                    let at = Tensor::from_slice(places, places.len(), &Device::Cpu)?;
                    let scores = match places.len() {
                        0 => Tensor::zeros((1, 2), x[0].dtype(), &Device::Cpu)?,
                        _ => all.narrow(0, candidate, 1)?.index_select(&at, 1)?,
                    };
                    rows.push(crate::eager::kept(&scores, &values, std::slice::from_ref(places))?);
                }
                heads.push(Tensor::cat(&rows, 0)?);
            }
            Tensor::cat(&heads, 1)?.matmul(&x[5].t()?)
        },
    )
}

#[test]
fn cross_features_where_they_belong() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    let cross = random(&[users.behaviours(), 2, 3], 7)?;
    let new = |cross| {
        let map = VarMap::new();
        TwinLayer::new(WIDTH, op(), cross, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))
    };
    let with = |layer: &TwinLayer, cross: Option<&Tensor>| {
        let error = layer.forward(&longseq, &batch, &x[0], &x[1], cross).err();
        error.map(|error| error.to_string()).unwrap_or_default()
    };
    let (plain, crossed) = (new(None)?, new(Some(CROSS))?);
    assert!(with(&plain, Some(&cross)).contains("TwinLayer: cross"), "{}", with(&plain, Some(&cross)));
    assert!(with(&crossed, None).contains("the cross features of behaviours"), "{}", with(&crossed, None));
    let turned = random(&[users.behaviours(), 3, 2], 7)?;
    assert!(
        with(&crossed, Some(&turned)).contains("[N, J, w] = [9, 2, 3]"),
        "{}",
        with(&crossed, Some(&turned))
    );
    assert_eq!(with(&plain, None), "");
    // Cross features in flat rows are the same.
    let flat_cross = cross.flatten_from(1)?;
    let [apart, joined] = [&cross, &flat_cross].map(|cross| {
        let out = crossed.forward(&longseq, &batch, &x[0], &x[1], Some(cross))?;
        flat(&out)
    });
    assert_eq!(apart?, joined?);
    Ok(())
}

#[test]
fn muse() -> Result<()> {
    const MUSE: [&str; 8] = [
        "query.weight",
        "key.weight",
        "value.weight",
        "gammas.score",
        "gammas.similarity",
        "gammas.product",
        "tiers.kept",
        "tiers.newest",
    ];
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (contents, of_targets) =
        (random(&[users.behaviours(), 5], 20)?, random(&[users.candidates(), 5], 21)?);
    let sides = [SearchTensor::Rows(&of_targets), SearchTensor::Rows(&contents)];
    let search = Search::cosine(5).with_top_k(2);
    let kept = longseq.search(&search, &batch, sides[0], sides[1], None)?;
    let at = positions(&kept)?;
    let histogram = SimilarityHistogram::new(10).with_top_k(2);
    let mut x = inputs(&users)?[..5].to_vec();
    x.extend([random(&[2], 7)?, random(&[2], 8)?, random(&[2], 9)?, random(&[21], 10)?, random(&[21], 11)?]);
    let flattened =
        |interest: &Tensor, tiers: &Tensor, newest: &Tensor| Tensor::cat(&[interest, tiers, newest], 1);
    check_chosen(
        "muse",
        &x,
        |x| {
            let layer = MuseLayer::new(WIDTH, 5, op(), builder(&MUSE, &x[2..]))?;
            let inputs = MuseTensors {
                targets: &x[0],
                history: &x[1],
                target_contents: sides[0],
                history_contents: sides[1],
            };
            let muse = layer.forward(&longseq, &batch, inputs)?;
            flattened(&muse.interest, &muse.tiers, &muse.newest)
        },
        |x| {
            let gammas = Tensor::stack(&x[5..8], 1)?;
            let similarities = kept.scores.maximum(-1.0)?;
            let interest = pooled(&users, &at, x, &gammas, &similarities)?;
            // SimTier of what is kept, and of the newest two.
            let similarity = similarity_of(&of_targets, &contents)?;
            let mut counts =
                [vec![vec![0.0; 21]; users.candidates()], vec![vec![0.0; 21]; users.candidates()]];
            for [n, length, m, count] in users.each() {
                for candidate in m..m + count {
                    let newest: Vec<usize> = (length.saturating_sub(2)..length).collect();
                    let places = at[candidate].iter().map(|&l| l as usize).collect::<Vec<_>>();
                    for (counts, places) in counts.iter_mut().zip([places, newest]) {
                        for l in places {
                            let bin = histogram.bin(similarity[candidate][n + l] as f32).expect("a number");
                            counts[candidate][bin] += 1.0;
                        }
                    }
                }
            }
            let tiers = |counts: &Vec<Vec<f64>>, of_bins: &Tensor| {
                let counts = Tensor::new(counts.clone(), &Device::Cpu)?.to_dtype(of_bins.dtype())?;
                (counts + 1.0)?.log()?.broadcast_mul(of_bins)
            };
            flattened(&interest, &tiers(&counts[0], &x[8])?, &tiers(&counts[1], &x[9])?)
        },
    )
}

/// The cosines of all pairs.
fn similarity_of(targets: &Tensor, history: &Tensor) -> Result<Vec<Vec<f64>>> {
    let unit = |rows: &Tensor| {
        let rows = wide(rows)?;
        rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
    };
    unit(targets)?.matmul(&unit(history)?.t()?)?.to_vec2()
}

#[test]
fn rows_of_another_shape_or_type() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let x = inputs(&users)?;
    let layer = EtaLayer::new(WIDTH, 8, op(), {
        let map = VarMap::new();
        VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)
    })?;
    let kept = layer.search(&longseq, &batch, &x[0], &x[1])?;
    let says = |targets: &Tensor, history: &Tensor, parts: &[&str]| {
        let error = layer.attend(&longseq, &batch, targets, history, &kept).err();
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        parts.iter().for_each(|part| assert!(message.contains(part), "{part} in: {message}"));
    };
    says(&x[0], &x[1], &[]);
    says(&x[0], &x[2], &["history", "[N, width] = [9, 4]", "[6, 4]"]);
    says(&x[0].to_dtype(DType::F16)?, &x[1], &["targets", "f32 like the other rows", "f16"]);
    Ok(())
}
