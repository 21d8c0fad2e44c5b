//! DiffuMIN's layer: the whole of it in candle's operations, row by row.

use std::collections::HashMap;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::ops::softmax;
use candle_nn::{AdamW, Optimizer, VarBuilder, VarMap};
use longseq::InterestChannels;
use longseq_candle::Longseq;
use longseq_candle::layers::{DiffuMin, DiffuMinLayer, DiffuMinNoise};

use crate::attention::batch;
use crate::common::{check_chosen, check_eager, flat, random};
use crate::eager::{Users, wide};
use crate::interest_channels::{choose, eager, right_angles};
use crate::layers::builder;

const WIDTH: usize = 4;
const CHANNELS: usize = 2;
const TIMESTEPS: usize = 50;
const STEPS: usize = 3;
const TEMPERATURE: f64 = 0.2;

pub(crate) fn op() -> DiffuMin {
    let channels = InterestChannels::new(WIDTH).with_channels(CHANNELS).with_top_k(2);
    DiffuMin::new(channels).with_steps(TIMESTEPS, STEPS).with_temperature(TEMPERATURE)
}

/// Two candidates of one user, one of a user without behaviours, one of a third.
fn users() -> Users {
    Users::new(&[6, 0, 3], &[2, 1, 1])
}

/// The names of the weights, and their shapes.
fn weights(blocks: usize) -> Vec<(String, Vec<usize>)> {
    let mut all = vec![("axes.weight".to_owned(), vec![CHANNELS * WIDTH, WIDTH])];
    let mut layer = |name: String, inputs: usize, outputs: usize| {
        all.push((format!("{name}.weight"), vec![outputs, inputs]));
        all.push((format!("{name}.bias"), vec![outputs]));
    };
    layer("denoiser.time.0".to_owned(), WIDTH, 4 * WIDTH);
    layer("denoiser.time.1".to_owned(), 4 * WIDTH, WIDTH);
    for side in ["own", "generated"] {
        layer(format!("contrast.{side}.0"), WIDTH, 4 * WIDTH);
        layer(format!("contrast.{side}.1"), 4 * WIDTH, WIDTH);
    }
    for block in 0..blocks {
        layer(format!("denoiser.blocks.{block}.feed.0"), WIDTH, 3 * WIDTH);
        layer(format!("denoiser.blocks.{block}.feed.1"), 3 * WIDTH, WIDTH);
    }
    for block in 0..blocks {
        for name in ["query", "key", "value", "output", "condition_value", "condition_output"] {
            all.push((format!("denoiser.blocks.{block}.{name}.weight"), vec![WIDTH, WIDTH]));
        }
        for norm in 0..3 {
            for part in ["weight", "bias"] {
                all.push((format!("denoiser.blocks.{block}.norms.{norm}.{part}"), vec![WIDTH]));
            }
        }
    }
    all
}

/// The layer in candle's operations, one row after the other.
struct Eager<'a> {
    blocks: usize,
    users: &'a Users,
    kept: &'a [Vec<Vec<u32>>],
    noise: Option<&'a Noise>,
    weights: HashMap<String, Tensor>,
}

/// Noise in tensors: of generation `[S, M·c, d]`, of training `[M·c, d]`, and its levels.
struct Noise {
    generation: Tensor,
    training: Tensor,
    levels: Vec<u32>,
}

impl Noise {
    fn new(candidates: usize) -> Result<Self> {
        let rows = candidates * CHANNELS;
        let levels = (0..rows).map(|row| (row * 17 % TIMESTEPS) as u32).collect();
        let generation = random(&[STEPS, rows, WIDTH], 40)?;
        Ok(Self { generation, training: random(&[rows, WIDTH], 41)?, levels })
    }

    fn ours(&self) -> Result<DiffuMinNoise> {
        DiffuMinNoise::new(&op(), &self.generation, &self.training, &self.levels)
    }
}

/// `ᾱ` of the published line of `β`.
fn left(level: usize) -> f64 {
    let beta = |k: usize| 1e-4 + (0.02 - 1e-4) * k as f64 / (TIMESTEPS - 1) as f64;
    (0..=level).map(|k| 1.0 - beta(k)).product()
}

fn unit(row: &Tensor) -> Result<Tensor> {
    row.broadcast_div(&row.sqr()?.sum_keepdim(1)?.sqrt()?)
}

impl Eager<'_> {
    fn linear(&self, name: &str, rows: &Tensor) -> Result<Tensor> {
        let rows = rows.matmul(&self.weights[&format!("{name}.weight")].t()?)?;
        match self.weights.get(&format!("{name}.bias")) {
            Some(bias) => rows.broadcast_add(bias),
            None => Ok(rows),
        }
    }

    fn norm(&self, name: &str, rows: &Tensor) -> Result<Tensor> {
        let centred = rows.broadcast_sub(&rows.mean_keepdim(1)?)?;
        let deviation = (centred.sqr()?.mean_keepdim(1)? + 1e-6)?.sqrt()?;
        let (weight, bias) =
            (&self.weights[&format!("{name}.weight")], &self.weights[&format!("{name}.bias")]);
        centred.broadcast_div(&deviation)?.broadcast_mul(weight)?.broadcast_add(bias)
    }

    fn attention(&self, name: &str, rows: &Tensor) -> Result<Tensor> {
        let project = |part: &str| self.linear(&format!("{name}.{part}"), rows);
        let (q, k, v) = (project("query")?, project("key")?, project("value")?);
        let mut heads = Vec::new();
        for head in 0..2 {
            let part = |rows: &Tensor| rows.narrow(1, head * WIDTH / 2, WIDTH / 2)?.contiguous();
            let scores = (part(&q)?.matmul(&part(&k)?.t()?)? / (WIDTH as f64 / 2.0).sqrt())?;
            heads.push(softmax(&scores, D::Minus1)?.matmul(&part(&v)?)?);
        }
        self.linear(&format!("{name}.output"), &Tensor::cat(&heads, 1)?)
    }

    /// The denoiser's row `i` among those of a candidate `[c, d]`.
    fn clean(&self, units: &Tensor, axis: &Tensor, i: usize, row: &Tensor, level: usize) -> Result<Tensor> {
        let angles: Vec<f64> =
            (0..WIDTH / 2).map(|k| level as f64 * (-(10_000f64.ln()) * k as f64).exp()).collect();
        let embedding: Vec<f64> =
            angles.iter().map(|x| x.sin()).chain(angles.iter().map(|x| x.cos())).collect();
        let embedding = Tensor::from_vec(embedding, (1, WIDTH), &Device::Cpu)?;
        let time = self.linear("denoiser.time.0", &embedding)?.silu()?;
        let time = self.linear("denoiser.time.1", &time)?;
        let mut rows = Vec::new();
        for j in 0..CHANNELS {
            rows.push(if i == j { row.clone() } else { units.narrow(0, j, 1)? });
        }
        let mut rows = Tensor::cat(&rows, 0)?.broadcast_add(&time)?;
        for block in 0..self.blocks {
            let name = format!("denoiser.blocks.{block}");
            rows = self.norm(&format!("{name}.norms.0"), &rows.add(&self.attention(&name, &rows)?)?)?;
            let condition = self.linear(&format!("{name}.condition_value"), axis)?;
            let condition = self.linear(&format!("{name}.condition_output"), &condition)?;
            rows = self.norm(&format!("{name}.norms.1"), &rows.broadcast_add(&condition)?)?;
            let fed = self.linear(&format!("{name}.feed.0"), &rows)?.relu()?;
            let fed = self.linear(&format!("{name}.feed.1"), &fed)?;
            rows = self.norm(&format!("{name}.norms.2"), &rows.add(&fed)?)?;
        }
        rows.narrow(0, i, 1)
    }

    /// `r*` of a channel, from level `S − 1` on.
    fn generated(&self, units: &Tensor, axis: &Tensor, i: usize, place: usize) -> Result<Tensor> {
        let noise = |index: usize| match self.noise {
            Some(noise) => wide(&noise.generation.get(index)?.narrow(0, place, 1)?),
            None => Tensor::zeros((1, WIDTH), DType::F64, &Device::Cpu),
        };
        let start = left(STEPS - 1);
        let mut x = (units.narrow(0, i, 1)? * start.sqrt())?.add(&(noise(0)? * (1.0 - start).sqrt())?)?;
        for level in (0..STEPS).rev() {
            let clean = self.clean(units, axis, i, &x, level)?;
            if level == 0 {
                return Ok(clean);
            }
            let (now, below) = (left(level), left(level - 1));
            let beta = 1.0 - now / below;
            let mean = (clean * (beta * below.sqrt() / (1.0 - now)))?
                .add(&(x * ((1.0 - below) * (1.0 - beta).sqrt() / (1.0 - now)))?)?;
            let deviation = (beta * (1.0 - below) / (1.0 - now)).sqrt();
            x = mean.add(&(noise(STEPS - level)? * deviation)?)?;
        }
        candle_core::bail!("no steps")
    }

    /// Interests, generated interests and, with noise, the two losses, in one row.
    fn all(&self, targets: &Tensor, history: &Tensor) -> Result<Tensor> {
        let axes = self.linear("axes", targets)?.reshape(((), CHANNELS, WIDTH))?;
        let interests = eager(&op().channels, self.users, self.kept, &axes, history)?;
        let (mut own, mut generated, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        for (m, kept) in self.kept.iter().enumerate() {
            let row = |i: usize| match kept[i].is_empty() {
                true => Tensor::zeros((1, WIDTH), DType::F64, &Device::Cpu),
                false => unit(&interests.get(m)?.narrow(0, i, 1)?),
            };
            let units = Tensor::cat(&(0..CHANNELS).map(row).collect::<Result<Vec<_>>>()?, 0)?;
            let angles = right_angles(&axes.get(m)?)?;
            for i in 0..CHANNELS {
                let (place, axis) = (m * CHANNELS + i, angles.narrow(0, i, 1)?);
                own.push(units.narrow(0, i, 1)?);
                generated.push(self.generated(&units, &axis, i, place)?);
                if let Some(noise) = self.noise {
                    let level = noise.levels[place] as usize;
                    let (clean, left) = (units.narrow(0, i, 1)?, left(level));
                    let added = (wide(&noise.training.narrow(0, place, 1)?)? * (1.0 - left).sqrt())?;
                    let noisy = (&clean * left.sqrt())?.add(&added)?;
                    errors.push(self.clean(&units, &axis, i, &noisy, level)?.sub(&clean)?.sqr()?.mean_all()?);
                }
            }
        }
        let joined = Tensor::cat(&[interests.reshape(((), WIDTH))?, Tensor::cat(&generated, 0)?], 0)?;
        let joined = joined.flatten_all()?;
        if self.noise.is_none() {
            return Ok(joined);
        }
        // Candidate 2 does not count; 0 and 1 are of one user.
        let counted = [0, 1, 3];
        let (mut diffusion, mut contrastive) = (Vec::new(), Vec::new());
        for m in counted {
            for i in 0..CHANNELS {
                diffusion.push(errors[m * CHANNELS + i].clone());
                let network = |side: &str, row: &Tensor| {
                    let hidden = self.linear(&format!("contrast.{side}.0"), row)?.relu()?;
                    unit(&self.linear(&format!("contrast.{side}.1"), &hidden)?)
                };
                let g = network("own", &own[m * CHANNELS + i])?;
                let mut terms = Vec::new();
                for other in counted {
                    if other == m || (other == 3) != (m == 3) {
                        let h = network("generated", &generated[other * CHANNELS + i])?;
                        terms.push((g.mul(&h)?.sum_all()? / TEMPERATURE)?);
                    }
                }
                let positive =
                    terms[counted.iter().filter(|&&o| o < m && (o == 3) != (m == 3)).count()].clone();
                let all = Tensor::stack(&terms, 0)?.exp()?.sum_all()?.log()?;
                contrastive.push(all.sub(&positive)?);
            }
        }
        let mean = |terms: &[Tensor]| Tensor::stack(terms, 0)?.mean_all()?.reshape(1);
        Tensor::cat(&[joined, mean(&diffusion)?, mean(&contrastive)?], 0)
    }
}

/// Candidates, behaviours, and all weights.
fn inputs(users: &Users, blocks: usize) -> Result<Vec<Tensor>> {
    let mut x = vec![random(&[users.candidates(), WIDTH], 1)?, random(&[users.behaviours(), WIDTH], 2)?];
    for (index, (name, shape)) in weights(blocks).iter().enumerate() {
        let weight = random(shape, 100 + index as u64)?;
        // Near 1, as they are at first.
        let is_norm = name.contains("norms") && name.ends_with("weight");
        x.push(if is_norm { ((weight * 0.3)? + 1.0)? } else { weight });
    }
    Ok(x)
}

#[test]
fn the_whole_layer_and_its_losses() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let noise = Noise::new(users.candidates())?;
    // The differences of more blocks would take long.
    for (blocks, noise) in [(1, Some(&noise)), (2, Some(&noise)), (2, None)] {
        let (op, x) = (op().with_blocks(blocks), inputs(&users, blocks)?);
        let names: Vec<String> = weights(blocks).into_iter().map(|(name, _)| name).collect();
        let borrowed: Vec<&str> = names.iter().map(String::as_str).collect();
        let axes = x[0].matmul(&x[2].t()?)?.reshape(((), CHANNELS, WIDTH))?;
        let kept = choose(&op.channels, &users, &axes, &x[1])?;
        let ours_noise = noise.map(Noise::ours).transpose()?;
        let ours = |x: &[Tensor]| {
            let layer = DiffuMinLayer::new(op, builder(&borrowed, &x[2..]))?;
            let interests = layer.forward(&longseq, &batch, &x[0], &x[1], ours_noise.as_ref())?;
            // All interests before all generated ones.
            let both = Tensor::cat(&[&interests.interests, &interests.generated], 0)?.flatten_all()?;
            let Some(noise) = &ours_noise else { return Ok(both) };
            let losses = layer.losses(&batch, &interests, noise)?;
            Tensor::cat(&[both, losses.diffusion.reshape(1)?, losses.contrastive.reshape(1)?], 0)
        };
        let eager = |x: &[Tensor]| {
            let weights = names.iter().cloned().zip(x[2..].iter().cloned()).collect();
            Eager { blocks, users: &users, kept: &kept, noise, weights }.all(&x[0], &x[1])
        };
        let what = format!("{blocks} blocks, noise: {}", noise.is_some());
        match blocks {
            1 => check_chosen(&what, &x, ours, eager)?,
            _ => check_eager(&what, &x, ours, eager)?,
        }
    }
    Ok(())
}

#[test]
fn it_learns_to_denoise() -> Result<()> {
    let users = users();
    let longseq = Longseq::cpu();
    let batch = batch(&longseq, &users)?;
    let (targets, history) = (random(&[4, WIDTH], 1)?, random(&[9, WIDTH], 2)?);
    let map = VarMap::new();
    let layer = DiffuMinLayer::new(op(), VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let mut optimiser = AdamW::new_lr(map.all_vars(), 0.01)?;
    let mut all = Vec::new();
    for _ in 0..40 {
        let noise = DiffuMinNoise::draw(&op(), 4, 7)?;
        let interests = layer.forward(&longseq, &batch, &targets, &history, Some(&noise))?;
        assert_eq!(interests.joined()?.dims(), [4, 2 * CHANNELS * WIDTH]);
        let losses = layer.losses(&batch, &interests, &noise)?;
        losses.weighted()?;
        let loss = losses.diffusion.add(&losses.contrastive)?;
        optimiser.backward_step(&loss)?;
        all.push(loss.to_scalar::<f32>()?);
    }
    assert!(all[39] < 0.8 * all[0], "{all:?}");
    Ok(())
}

#[test]
fn nothing_to_do_and_nothing_that_counts() -> Result<()> {
    let longseq = Longseq::cpu();
    let map = VarMap::new();
    let layer = DiffuMinLayer::new(op(), VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    for (histories, candidates) in [([3, 0], [0, 0]), ([0, 0], [1, 2])] {
        let users = Users::new(&histories, &candidates);
        let batch = batch(&longseq, &users)?;
        let (targets, history) =
            (random(&[users.candidates(), WIDTH], 1)?, random(&[users.behaviours(), WIDTH], 2)?);
        let noise = DiffuMinNoise::draw(&op(), users.candidates(), 1)?;
        let interests = layer.forward(&longseq, &batch, &targets, &history, Some(&noise))?;
        assert_eq!(interests.generated.dims(), [users.candidates(), CHANNELS, WIDTH]);
        assert!(flat(&interests.interests)?.iter().all(|&x| x == 0.0));
        let losses = layer.losses(&batch, &interests, &noise)?;
        assert_eq!((flat(&losses.diffusion)?, flat(&losses.contrastive)?), (vec![0.0], vec![0.0]));
    }
    Ok(())
}

#[test]
fn what_is_refused() -> Result<()> {
    let says = |error: Option<candle_core::Error>, parts: &[&str]| {
        let message = error.map(|error| error.to_string()).unwrap_or_default();
        parts.iter().for_each(|part| assert!(message.contains(part), "{part} in: {message}"));
    };
    let map = VarMap::new();
    let with = |op: DiffuMin, dtype| {
        DiffuMinLayer::new(op, VarBuilder::from_varmap(&map, dtype, &Device::Cpu)).err()
    };
    says(with(op().with_heads(3), DType::F32), &["DiffuMinLayer: heads", "a divisor of the width of 4", "3"]);
    says(with(op().with_blocks(0), DType::F32), &["blocks", "at least 1"]);
    says(with(op().with_steps(5, 6), DType::F32), &["steps", "at most timesteps = 5", "6"]);
    says(with(op().with_temperature(0.0), DType::F32), &["temperature", "above 0"]);
    let mut normalised = op();
    normalised.channels = normalised.channels.with_normalise(true);
    says(with(normalised, DType::F32), &["channels.normalise"]);
    let mut falling = op();
    falling.betas = (0.02, 1e-4);
    says(with(falling, DType::F32), &["betas", "rising"]);
    says(with(op(), DType::F16), &["builder", "weights of f32", "f16"]);

    let (longseq, users) = (Longseq::cpu(), users());
    let batch = batch(&longseq, &users)?;
    let layer = DiffuMinLayer::new(op(), VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
    let (targets, history) = (random(&[4, WIDTH], 1)?, random(&[9, WIDTH], 2)?);
    let few = DiffuMinNoise::draw(&op(), 3, 1)?;
    let error = layer.forward(&longseq, &batch, &targets, &history, Some(&few)).err();
    says(error, &["noise for 4 candidates, [3, 8, 4]", "[3, 6, 4]"]);
    let error = layer.forward(&longseq, &batch, &history, &history, None).err();
    says(error, &["targets", "[M, width] = [4, 4]", "[9, 4]"]);
    let noise = Noise::new(4)?;
    let error = DiffuMinNoise::new(&op(), &noise.generation, &noise.training, &[50; 8]).err();
    says(error, &["noise.levels", "below 50", "50"]);
    let error = DiffuMinNoise::new(&op(), &noise.training, &noise.training, &noise.levels).err();
    says(error, &["noise.generation", "[S, M·c, d] = [3, 8, 4]"]);
    Ok(())
}
