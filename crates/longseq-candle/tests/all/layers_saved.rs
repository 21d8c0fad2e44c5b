//! Every new layer: which weights have gradients, and that a saved layer is loaded as it was.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use longseq::{Search, SelectedAttention};
use longseq_candle::layers::{
    CrossFeatures, DiffuMinLayer, DiffuMinNoise, EtaLayer, MuseLayer, MuseTensors, QinLayer,
    SelectedAttentionLayer, TwinLayer,
};
use longseq_candle::{Batch, Longseq, SearchTensor};

use crate::attention::batch;
use crate::common::{flat, loss, random};
use crate::eager::Users;

const WIDTH: usize = 4;

/// What all layers are tried on.
struct Request {
    longseq: Longseq,
    batch: Batch,
    targets: Tensor,
    history: Tensor,
}

fn op() -> SelectedAttention {
    SelectedAttention::new(3).with_heads(2, 2).with_top_k(3)
}

impl Request {
    fn new() -> Result<Self> {
        let (longseq, users) = (Longseq::cpu(), Users::new(&[6, 0, 4], &[2, 1, 2]));
        let batch = batch(&longseq, &users)?;
        let (targets, history) = (random(&[5, WIDTH], 1)?, random(&[10, WIDTH], 2)?);
        Ok(Self { longseq, batch, targets, history })
    }

    fn selected(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let sides = [&self.targets, &self.history].map(SearchTensor::Rows);
        let search = Search::dot(WIDTH).with_top_k(3);
        let kept = self.longseq.search(&search, &self.batch, sides[0], sides[1], None)?;
        let layer = SelectedAttentionLayer::new(WIDTH, op(), builder)?;
        layer.forward(&self.longseq, &self.batch, &self.targets, &self.history, &kept)
    }

    fn eta(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let layer = EtaLayer::new(WIDTH, 16, op(), builder)?;
        layer.forward(&self.longseq, &self.batch, &self.targets, &self.history)
    }

    fn twin(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let cross = random(&[10, 2, 3], 3)?;
        let features = CrossFeatures { features: 2, width: 3 };
        let layer = TwinLayer::new(WIDTH, op(), Some(features), builder)?;
        layer.forward(&self.longseq, &self.batch, &self.targets, &self.history, Some(&cross))
    }

    fn muse(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let (contents, of_targets) = (random(&[10, 5], 4)?, random(&[5, 5], 5)?);
        let layer = MuseLayer::new(WIDTH, 5, op(), builder)?;
        let inputs = MuseTensors {
            targets: &self.targets,
            history: &self.history,
            target_contents: SearchTensor::Rows(&of_targets),
            history_contents: SearchTensor::Rows(&contents),
        };
        let muse = layer.forward(&self.longseq, &self.batch, inputs)?;
        Tensor::cat(&[muse.interest, muse.tiers, muse.newest], 1)
    }

    fn qin(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let layer = QinLayer::new(WIDTH, 8, builder)?;
        layer.forward(&self.longseq, &self.batch, &self.targets, &self.history)
    }

    fn diffumin(&self, builder: VarBuilder<'_>) -> Result<Tensor> {
        let op = crate::layers_diffumin::op();
        let layer = DiffuMinLayer::new(op, builder)?;
        let noise = DiffuMinNoise::draw(&op, 5, 6)?;
        let interests =
            layer.forward(&self.longseq, &self.batch, &self.targets, &self.history, Some(&noise))?;
        let losses = layer.losses(&self.batch, &interests, &noise)?;
        let losses = [losses.diffusion.reshape(1)?, losses.contrastive.reshape(1)?];
        Tensor::cat(&[&interests.joined()?.flatten_all()?, &losses[0], &losses[1]], 0)
    }
}

#[test]
fn layers_are_trained_saved_and_loaded() -> Result<()> {
    type Run = fn(&Request, VarBuilder<'_>) -> Result<Tensor>;
    let runs: [(&str, Run); 6] = [
        ("selected", Request::selected),
        ("eta", Request::eta),
        ("twin", Request::twin),
        ("muse", Request::muse),
        ("qin", Request::qin),
        ("diffumin", Request::diffumin),
    ];
    let request = Request::new()?;
    for (name, run) in runs {
        let map = VarMap::new();
        let new = |map: &VarMap| VarBuilder::from_varmap(map, DType::F32, &Device::Cpu);
        let out = run(&request, new(&map))?;
        let grads = loss(&out)?.backward()?;
        for (weight, var) in &map.data().lock().expect("no panic").clone() {
            assert_eq!(grads.get(var).is_some(), weight != "rotations", "{name}: {weight}");
        }
        let path =
            std::env::temp_dir().join(format!("longseq-candle-{name}-{}.safetensors", std::process::id()));
        map.save(&path)?;
        // Into variables that there are already, and straight from the file.
        let mut other = VarMap::new();
        run(&request, new(&other))?;
        other.load(&path)?;
        assert_eq!(flat(&run(&request, new(&other))?)?, flat(&out)?, "{name}");
        let tensors = candle_core::safetensors::load(&path, &Device::Cpu)?;
        let fixed = run(&request, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu))?;
        assert_eq!(flat(&fixed)?, flat(&out)?, "{name}");
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
