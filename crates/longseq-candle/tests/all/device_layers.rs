//! Layers on longseq's GPU backends: the same weights on the same tensors give what they give on `Cpu`, forward and backward.

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use longseq::{Din, DinPooling, Sdim, SelectedAttention, TargetAttention, Tin};
use longseq_candle::layers::{
    DinActivation, DinLayer, EtaLayer, MuseLayer, MuseTensors, QinLayer, SdimLayer, TargetAttentionLayer,
    TinLayer, TwinLayer,
};
use longseq_candle::{Longseq, Place, SearchTensor};

use crate::common::{assert_near, flat, loss, random};

const WIDTH: usize = 8;

struct Layers {
    attention: TargetAttentionLayer,
    din: DinLayer,
    sdim: SdimLayer,
    tin: TinLayer,
    qin: QinLayer,
    twin: TwinLayer,
    eta: EtaLayer,
    muse: MuseLayer,
    /// All weights, and candidates and behaviours.
    vars: Vec<Var>,
    targets: Var,
    history: Var,
    contents: [Tensor; 2],
}

impl Layers {
    fn new() -> Result<Self> {
        let map = VarMap::new();
        let weights = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let selected = SelectedAttention::new(4).with_heads(2, 2).with_top_k(3);
        let attention = TargetAttention::new(4).with_heads(2, 2);
        let din = Din::new(WIDTH).with_pooling(DinPooling::Softmax);
        let codes = |rows: usize, seed: u64| -> Result<Tensor> {
            let rows = ((random(&[rows, 16], seed)? * 40.0)? + 128.0)?;
            rows.clamp(1.0, 255.0)?.to_dtype(DType::U8)
        };
        let (targets, history) = (random(&[3, WIDTH], 1)?, random(&[12, WIDTH], 2)?);
        let (targets, history) = (Var::from_tensor(&targets)?, Var::from_tensor(&history)?);
        let mut layers = Self {
            attention: TargetAttentionLayer::new(WIDTH, attention, weights.pp("attention"))?,
            din: DinLayer::new(din, &[6], DinActivation::Prelu, weights.pp("din"))?,
            sdim: SdimLayer::new(Sdim::new(WIDTH).with_groups(4, 2), weights.pp("sdim"))?,
            tin: TinLayer::new(Tin::new(WIDTH).with_positions(9), weights.pp("tin"))?,
            qin: QinLayer::new(WIDTH, 16, weights.pp("qin"))?,
            twin: TwinLayer::new(WIDTH, selected, None, weights.pp("twin"))?,
            eta: EtaLayer::new(WIDTH, 32, selected, weights.pp("eta"))?,
            muse: MuseLayer::new(WIDTH, 16, selected, weights.pp("muse"))?,
            vars: Vec::new(),
            targets,
            history,
            contents: [codes(3, 3)?, codes(12, 4)?],
        };
        layers.vars = map.all_vars();
        layers.vars.extend([layers.targets.clone(), layers.history.clone()]);
        Ok(layers)
    }

    /// The results of each layer, and its gradients.
    fn results<B: Place>(&self, longseq: &Longseq<B>) -> Result<Vec<(&'static str, Vec<f64>)>> {
        let batch = longseq.batch(&[0u32, 5, 12][..], &[0u32, 2, 3][..])?;
        let (targets, history): (&Tensor, &Tensor) = (&self.targets, &self.history);
        let contents = MuseTensors {
            targets,
            history,
            target_contents: SearchTensor::Codes(&self.contents[0]),
            history_contents: SearchTensor::Codes(&self.contents[1]),
        };
        let muse = self.muse.forward(longseq, &batch, contents)?;
        let outs = [
            ("target attention", self.attention.forward(longseq, &batch, targets, history)?),
            ("DIN", self.din.forward(longseq, &batch, targets, history)?),
            ("SDIM", self.sdim.forward(longseq, &batch, targets, history)?),
            ("TIN", self.tin.forward(longseq, &batch, targets, history)?),
            ("QIN", self.qin.forward(longseq, &batch, targets, history)?),
            ("TWIN", self.twin.forward(longseq, &batch, targets, history, None)?),
            ("ETA", self.eta.forward(longseq, &batch, targets, history)?),
            ("MUSE", muse.interest),
            ("MUSE's kept tiers", muse.tiers),
            ("MUSE's newest tiers", muse.newest),
        ];
        let mut results = Vec::new();
        for (name, out) in outs {
            results.push((name, flat(&out)?));
            let grads = loss(&out)?.backward()?;
            let of_vars = self.vars.iter().filter_map(|var| grads.get(var).map(flat));
            results.extend(of_vars.collect::<Result<Vec<_>>>()?.into_iter().map(|grad| (name, grad)));
        }
        Ok(results)
    }
}

fn compare<B: Place>(device: &Longseq<B>) -> Result<()> {
    let layers = Layers::new()?;
    let (got, exact) = (layers.results(device)?, layers.results(&Longseq::cpu())?);
    assert_eq!(got.len(), exact.len());
    assert!(exact.len() > 40, "{}", exact.len());
    for ((name, got), (_, exact)) in got.iter().zip(&exact) {
        assert_near(name, got, exact, 2e-5);
    }
    Ok(())
}

#[cfg(feature = "wgpu")]
#[test]
fn on_wgpu() -> Result<()> {
    crate::devices::wgpu(|longseq| compare(&longseq))
}

#[cfg(feature = "cuda")]
#[test]
fn on_cuda() -> Result<()> {
    crate::devices::cuda(|longseq| compare(&longseq))
}
