//! A backend of one operation, as `docs/add-a-backend.md` walks through it: everything else answers `Unsupported`.

use longseq::*;
use longseq_check::case::assert_check;
use longseq_check::target_attention::AttentionCase;
use longseq_check::{Rules, registry};

/// Computes on the host, one candidate after the other.
struct Plain;

impl DeviceOps for Plain {
    type Memory = Host;
    type Jagged = Jagged;
    type Batch = Batch;

    fn device(&self) -> String {
        "plain loops".into()
    }

    fn fork(&self) -> Result<Self> {
        Ok(Plain)
    }

    fn upload<T: Scalar>(&self, data: &[T]) -> Result<HostBuffer<T>> {
        Ok(data.iter().copied().collect())
    }

    fn zeros<T: Scalar>(&self, length: usize) -> Result<HostBuffer<T>> {
        Ok(vec![T::zeroed(); length].into())
    }

    fn download<T: Scalar>(&self, view: View<'_, Host, T>) -> Result<Vec<T>> {
        Ok(view.to_vec())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn jagged(&self, jagged: &Jagged) -> Result<Jagged> {
        Ok(jagged.clone())
    }

    fn batch(&self, histories: &Jagged, targets: &Jagged) -> Result<Batch> {
        Batch::new(histories.clone(), targets.clone())
    }
}

impl TargetAttentionOps for Plain {
    fn target_attention_into<T: Element>(
        &self,
        op: &TargetAttention,
        batch: &Batch,
        inputs: TargetAttentionInputs<'_, Host, T>,
        mut outputs: TargetAttentionOutputs<'_, Host, T>,
    ) -> Result<()> {
        op.check(batch, &inputs)?;
        op.check_outputs(batch, &outputs)?;
        // The reference is a backend's first implementation, too.
        let results = reference::target_attention(op, batch, &inputs)?;
        let used = batch.targets().total() * op.heads;
        for (out, result) in outputs.out.iter_mut().zip(&results.out[..used * op.value_width]) {
            *out = T::from_f32(*result as f32);
        }
        for (lse, result) in outputs.lse.iter_mut().flat_map(|lse| lse.iter_mut()).zip(&results.lse) {
            *lse = *result as f32;
        }
        Ok(())
    }
}

impl DinOps for Plain {}
impl SdimOps for Plain {}
impl LookupOps for Plain {}
impl DecoupledOps for Plain {}
impl SearchOps for Plain {}
impl SelectedOps for Plain {}
impl TinOps for Plain {}
impl InterestChannelsOps for Plain {}

#[test]
fn one_operation_is_enough() {
    let case = AttentionCase { histories: vec![9, 0, 20], targets: vec![3, 1, 4], ..Default::default() };
    assert_check(&case, &Plain, Rules::IEEE);
    let odd = registry::tests::<Plain>("target_attention");
    let odd = odd.iter().find(|test| test.name == "matches_reference_on_odd_lengths").expect("a test");
    (odd.run)(&Plain, Rules::IEEE);
    let tables = [Table::new(1, 1, TableData::F32(Host::view(&[1.0])))];
    let error = Plain.lookup(&Lookup::default(), Bags::Each, LookupInputs::new(Host::view(&[0]), &tables));
    assert!(matches!(error, Err(Error::Unsupported { operation: "lookup", .. })));
}
