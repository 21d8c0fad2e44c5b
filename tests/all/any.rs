//! `AnyBackend`: what one kind of device made, another refuses, and errors name the argument. Its results are compared with the reference
//! in `operations`.

use longseq::*;
use longseq_check::device::Kind;

/// The devices of tests that are no CPU.
fn others() -> Vec<AnyBackend> {
    Kind::ALL.iter().filter(|kind| **kind != Kind::Cpu).filter_map(|kind| kind.device()).collect()
}

/// What one device made: arguments are taken out before their shapes are checked, so one element is enough.
struct Own {
    rows: AnyBuffer<f32>,
    words: AnyBuffer<u32>,
    jagged: AnyJagged,
    batch: AnyBatch,
}

impl Own {
    fn of(device: &AnyBackend) -> Self {
        let one = Jagged::from_lengths(&[1]).expect("a small length");
        Self {
            rows: device.upload(&[1.0]).expect("an upload"),
            words: device.upload(&[0]).expect("an upload"),
            jagged: device.jagged(&one).expect("one user"),
            batch: device.batch(&one, &one).expect("one user"),
        }
    }
}

/// The arguments of a call of the first device, of which one is the second's: the one with the number `foreign`.
struct Arguments<'a> {
    devices: [&'a AnyBackend; 2],
    own: [Own; 2],
    foreign: usize,
}

impl Arguments<'_> {
    fn own(&self, argument: usize) -> &Own {
        &self.own[usize::from(argument == self.foreign)]
    }

    fn rows(&self, argument: usize) -> View<'_, AnyMemory, f32> {
        View::new(&self.own(argument).rows)
    }

    fn words(&self, argument: usize) -> View<'_, AnyMemory, u32> {
        View::new(&self.own(argument).words)
    }

    fn table(&self, argument: usize) -> Table<'_, AnyMemory> {
        Table::new(1, 1, TableData::F32(self.rows(argument)))
    }

    /// Three arguments.
    fn selection(&self, first: usize) -> Selection<'_, AnyMemory> {
        Selection::new(self.words(first), self.rows(first + 1), self.words(first + 2))
    }

    /// A buffer to be written.
    fn out<T: Scalar>(&self, argument: usize) -> AnyBuffer<T> {
        self.devices[usize::from(argument == self.foreign)].zeros(1).expect("a buffer")
    }
}

/// Checks the errors of a call whose arguments have these names, where each in turn is another device's.
fn refuses(operation: &str, names: &[&str], call: impl Fn(&AnyBackend, &Arguments<'_>) -> Result<()>) {
    let cpu = AnyBackend::from(Cpu::new());
    for devices in others().iter().flat_map(|other| [[&cpu, other], [other, &cpu]]) {
        let mut arguments = Arguments { devices, own: devices.map(Own::of), foreign: 0 };
        for (foreign, name) in names.iter().enumerate() {
            arguments.foreign = foreign;
            let error = call(devices[0], &arguments).expect_err(name).to_string();
            let expected = "expected one that was made for this device, got one of another device";
            assert_eq!(error, format!("{operation}: {name}: {expected}"));
        }
    }
}

#[test]
fn copies_refuse_memory_of_another_kind() {
    refuses("upload_into", &["out"], |gpu, given| {
        gpu.upload_into(gpu.view_mut(&mut given.out::<f32>(0)), &[1.0])
    });
    refuses("copy", &["from", "to"], |gpu, given| {
        gpu.copy(given.rows(0), gpu.view_mut(&mut given.out::<f32>(1)))
    });
    refuses("download", &["view"], |gpu, given| gpu.download(given.rows(0)).map(drop));
}

#[test]
fn target_attention_refuses_memory_of_another_kind() {
    let op = TargetAttention::new(1);
    let names = ["batch", "queries", "keys", "values", "bias", "out", "lse"];
    refuses("target_attention", &names, |gpu, given| {
        let inputs = TargetAttentionInputs::new(given.rows(1), given.rows(2))
            .with_values(given.rows(3))
            .with_bias(given.rows(4));
        let (mut out, mut lse) = (given.out(5), given.out(6));
        let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out)).with_lse(gpu.view_mut(&mut lse));
        gpu.target_attention_into(&op, &given.own(0).batch, inputs, outputs)
    });
    let names = ["saved.out", "saved.lse", "grad_out.out", "grad_out.lse", "grads.keys", "grads.queries"];
    refuses("target_attention_backward", &names, |gpu, given| {
        let (mut keys, mut queries) = (given.out::<f32>(4), given.out(5));
        let inputs = TargetAttentionInputs::new(given.rows(9), given.rows(9));
        let saved = TargetAttentionSaved::new(given.rows(0), given.rows(1));
        let grad_out = TargetAttentionGradOut::new(given.rows(2)).with_lse(given.rows(3));
        let grads = TargetAttentionGradients::new()
            .with_keys(gpu.view_mut(&mut keys))
            .with_queries(gpu.view_mut(&mut queries));
        gpu.target_attention_backward_into(&op, &given.own(9).batch, inputs, saved, grad_out, grads)
    });
    let names = ["first.out", "first.lse", "second.out", "second.lse", "out"];
    refuses("merge_attention", &names, |gpu, given| {
        let first = PartialAttention::new(given.rows(0), given.rows(1));
        let second = PartialAttention::new(given.rows(2), given.rows(3));
        let mut out = given.out(4);
        let outputs = TargetAttentionOutputs::new(gpu.view_mut(&mut out));
        gpu.merge_attention_into(&op, first, second, outputs)
    });
}

#[test]
fn look_ups_refuse_memory_of_another_kind() {
    let op = Lookup::default();
    let names = ["bags", "ids", "tables", "second_tables", "weights", "out", "second"];
    refuses("lookup", &names, |gpu, given| {
        let (tables, second) = ([given.table(9), given.table(2)], [given.table(3)]);
        let inputs = LookupInputs::new(given.words(1), &tables)
            .with_second_tables(&second)
            .with_weights(given.rows(4));
        let (mut out, mut second) = (given.out(5), given.out(6));
        let outputs = LookupOutputs::new(gpu.view_mut(&mut out)).with_second(gpu.view_mut(&mut second));
        gpu.lookup_into(&op, Bags::Sum(&given.own(0).jagged), inputs, outputs)
    });
    let names = ["sorted", "grad_out.out", "grads.tables", "grads.tables", "grads.weights"];
    refuses("lookup_backward", &names, |gpu, given| {
        let tables = [given.table(9)];
        let sorted = [SortedIds::new(given.words(9), given.words(0), given.words(9), given.words(9))];
        let saved = LookupSaved::new().with_sorted(&sorted);
        let (mut ids, mut rows, mut count) = (given.out(9), given.out(2), given.out(9));
        let (mut dense, mut weights) = (given.out(3), given.out(4));
        let sparse =
            SparseGradientMut::new(gpu.view_mut(&mut ids), gpu.view_mut(&mut rows), gpu.view_mut(&mut count));
        let dense = TableGradient::Dense(gpu.view_mut(&mut dense));
        let grads = LookupGradients::new()
            .with_tables([Some(TableGradient::Sparse(sparse)), None, Some(dense)])
            .with_weights(gpu.view_mut(&mut weights));
        let (inputs, grad_out) =
            (LookupInputs::new(given.words(9), &tables), LookupGradOut::new(given.rows(1)));
        gpu.lookup_backward_into(&op, Bags::Each, inputs, saved, grad_out, grads)
    });
    let names = ["table", "state.first", "state.second", "gradient.ids", "gradient.rows", "gradient.count"];
    refuses("update_rows", &names, |gpu, given| {
        let (mut table, mut first, mut second) = (given.out::<f32>(0), given.out(1), given.out(2));
        let table = TableMut::new(1, 1, gpu.view_mut(&mut table));
        let state =
            OptimiserState::Moments { first: gpu.view_mut(&mut first), second: gpu.view_mut(&mut second) };
        let gradient = SparseGradient::new(given.words(3), given.rows(4), given.words(5));
        gpu.update_rows(&Optimiser::sgd(1.0), table, state, gradient)
    });
}

#[test]
fn lists_of_tables_and_layers_refuse_memory_of_another_kind() {
    let names = ["hidden", "hidden", "grads.hidden", "grads.targets"];
    refuses("din_backward", &names, |gpu, given| {
        let activation = Activation::Prelu { alpha: given.rows(1) };
        let layers = [DinLayer::new(given.rows(0), given.rows(9), activation)];
        let inputs = DinInputs::new(given.rows(9), given.rows(9), &layers, given.rows(9), given.rows(9));
        let (mut bias, mut targets) = (given.out(2), given.out::<f32>(3));
        let mut hidden = [DinLayerGradients::new().with_bias(gpu.view_mut(&mut bias))];
        let grads = DinGradients::new().with_targets(gpu.view_mut(&mut targets)).with_hidden(&mut hidden);
        gpu.din_backward_into(&Din::new(1), &given.own(9).batch, inputs, given.rows(9), grads)
    });
    let names = ["attention", "representation", "history_ids", "target_ids", "out"];
    refuses("decoupled_attend", &names, |gpu, given| {
        let (attention, representation) = ([given.table(0)], [given.table(1)]);
        let inputs = DecoupledInputs::new(&attention, &representation, given.words(2), given.words(3));
        let mut out = given.out(4);
        let op = Decoupled::new([1.0]);
        gpu.decoupled_attend_into(&op, &given.own(9).batch, inputs, gpu.view_mut(&mut out))
    });
    let names = ["keys", "values", "history_ids", "positions", "scores", "counts", "out"];
    refuses("selected_table_attention", &names, |gpu, given| {
        let (keys, values) = ([given.table(0)], [given.table(1)]);
        let keys = SelectedKeys::Tables(&keys);
        let inputs =
            SelectedTableInputs::new(given.rows(9), keys, &values, given.words(2), given.selection(3));
        let mut out = given.out(6);
        let outputs = SelectedAttentionOutputs::new(gpu.view_mut(&mut out));
        gpu.selected_table_attention_into(&SelectedAttention::new(1), &given.own(9).batch, inputs, outputs)
    });
}

#[test]
fn other_operations_refuse_memory_of_another_kind() {
    refuses("search", &["batch", "queries", "keys", "scores"], |gpu, given| {
        let inputs = SimilarityInputs::new(SearchRows::F32(given.rows(1)), SearchRows::F32(given.rows(2)));
        let (mut positions, mut scores, mut counts) = (given.out(9), given.out(3), given.out(9));
        let out = SelectionMut::new(
            gpu.view_mut(&mut positions),
            gpu.view_mut(&mut scores),
            gpu.view_mut(&mut counts),
        );
        gpu.search_into(&Search::dot(1), &given.own(0).batch, inputs, out)
    });
    let names = ["targets", "table", "users", "targets", "hash", "out"];
    refuses("sdim_query", &names, |gpu, given| {
        let mut inputs = SdimQueryInputs::new(given.rows(1), Hash::Rotations(given.rows(4)));
        (inputs.users, inputs.targets) = (Some(given.words(2)), Some(given.rows(3)));
        let mut out = given.out::<f32>(5);
        gpu.sdim_query_into(&Sdim::new(1), &given.own(0).jagged, inputs, gpu.view_mut(&mut out))
    });
    refuses("tin", &["batch", "targets", "history", "positions", "out"], |gpu, given| {
        let inputs = TinInputs::new(given.rows(1), given.rows(2), given.rows(3));
        let mut out = given.out(4);
        gpu.tin_into(&Tin::new(1), &given.own(0).batch, inputs, TinOutputs::new(gpu.view_mut(&mut out)))
    });
    let names = ["saved.kept.positions", "saved.kept.scores", "saved.kept.counts", "grad_out", "grads.axes"];
    refuses("interest_channels_backward", &names, |gpu, given| {
        let inputs = InterestChannelsInputs::new(given.rows(9), given.rows(9));
        let mut axes = given.out::<f32>(4);
        let grads = InterestChannelsGradients::new().with_axes(gpu.view_mut(&mut axes));
        let saved = InterestChannelsSaved::new(given.selection(0));
        let (op, batch) = (InterestChannels::new(1), &given.own(9).batch);
        gpu.interest_channels_backward_into(&op, batch, inputs, saved, given.rows(3), grads)
    });
}
