//! Every Rust struct that a kernel reads has the fields of the CUDA struct of its name.

use std::fs;

use crate::cuda::batch::{Piece, Tile};
use crate::cuda::contracts::source::{Source, files};
use crate::cuda::decoupled::aggregate::DecoupledAggregateParams;
use crate::cuda::decoupled::attend::DecoupledAttendParams;
use crate::cuda::decoupled::backward::all_kernels::{
    DecoupledAddRowsParams, DecoupledAllIdsParams, DecoupledMergeStatesParams, DecoupledMergeSumsParams,
    DecoupledPairSumsParams, DecoupledPairsParams, DecoupledScaleParams,
};
use crate::cuda::decoupled::backward::chunks::{DecoupledMerge, DecoupledSpan, DecoupledTile};
use crate::cuda::decoupled::backward::kept::{
    DecoupledKeepParams, DecoupledKeptRowsParams, DecoupledScoreGradientsParams,
};
use crate::cuda::decoupled::rows::Rows;
use crate::cuda::decoupled::scores::Scoring;
use crate::cuda::decoupled::search::DecoupledSearchParams;
use crate::cuda::din::kernels::{DinBackwardLayer, DinBackwardParams};
use crate::cuda::din::{DinAttendParams, DinCombineParams, DinLayer, DinPrepareParams};
use crate::cuda::interest_channels::axes::{ChannelsAxesGradientParams, ChannelsAxesParams};
use crate::cuda::interest_channels::backward::ChannelsGradientParams;
use crate::cuda::interest_channels::parts::ChannelPiece;
use crate::cuda::interest_channels::pool::{ChannelsPoolParams, ChannelsRouteParams, ChannelsSelectParams};
use crate::cuda::lookup::backward::{BagsOfRowsParams, TableGradientParams};
use crate::cuda::lookup::order::OrderCheckParams;
use crate::cuda::lookup::sort::SortIdsParams;
use crate::cuda::lookup::update::UpdateRowsParams;
use crate::cuda::lookup::weights::{BagIdsParams, WeightGradientParams};
use crate::cuda::lookup::{LookupColumn, LookupParams};
use crate::cuda::sdim::backward::{SdimBucketParams, SdimMatchParams, SdimTargetGradientParams};
use crate::cuda::sdim::encode::{SdimCombineParams, SdimEncodeParams, SdimScatterParams, SdimWeighParams};
use crate::cuda::sdim::gather::SdimGatherParams;
use crate::cuda::sdim::items::SdimItemsParams;
use crate::cuda::sdim::query::{SdimQueryParams, SdimSumsParams};
use crate::cuda::sdim::signatures::{SdimCheckParams, SdimSignatureParams};
use crate::cuda::sdim::tables::{SdimAddParams, SdimDecayParams};
use crate::cuda::search::newest::SearchNewestParams;
use crate::cuda::search::rows::SearchParams;
use crate::cuda::search::signs::PackSignsParams;
use crate::cuda::selected::SelectedInputs;
use crate::cuda::selected::attend::SelectedAttentionParams;
use crate::cuda::selected::backward::{
    SelectedGammasParams, SelectedGradientParams, SelectedNarrowParams, SelectedSimilaritiesParams,
    SelectedWidenParams,
};
use crate::cuda::selected::histogram::SimilarityHistogramParams;
use crate::cuda::selected::tables::SelectedSlotsParams;
use crate::cuda::selected::tables::rows::{SelectedSlotBagsParams, SelectedSlotRowsParams};
use crate::cuda::selection::{KeptLists, SelectParams};
use crate::cuda::tables::DeviceTable;
use crate::cuda::target_attention::backward::{
    AttentionBackwardParams, AttentionSpan, AttentionStatesParams, CombineQueriesParams, MergeBackwardParams,
    SplitTarget,
};
use crate::cuda::target_attention::{CombinePiecesParams, MergePairsParams, TargetAttentionParams};
use crate::cuda::tin::attend::{TinCombineParams, TinOutputPointers, TinParams};
use crate::cuda::tin::backward::{TinBackwardParams, TinStatesParams, TinTargetGradientParams};
use crate::cuda::tin::positions::{TinCountParams, TinPositionGradientParams};
use crate::cuda::tin::rows::{TinPositions, TinPrepareParams};
use crate::cuda::twin::{Field, Twin};

type Described = (&'static str, Vec<Field>);

fn twin<T: Twin>() -> Described {
    (T::NAME, T::fields())
}

/// Name, size and fields of every twin.
fn twins() -> Vec<Described> {
    [of_attention(), of_rows(), of_searches()].concat()
}

/// Target attention, DIN, SDIM, TIN.
fn of_attention() -> Vec<Described> {
    vec![
        twin::<Tile>(),
        twin::<Piece>(),
        twin::<DeviceTable>(),
        twin::<TargetAttentionParams>(),
        twin::<CombinePiecesParams>(),
        twin::<MergePairsParams>(),
        twin::<AttentionSpan>(),
        twin::<SplitTarget>(),
        twin::<AttentionStatesParams>(),
        twin::<AttentionBackwardParams>(),
        twin::<CombineQueriesParams>(),
        twin::<MergeBackwardParams>(),
        twin::<DinLayer>(),
        twin::<DinPrepareParams>(),
        twin::<DinAttendParams>(),
        twin::<DinCombineParams>(),
        twin::<DinBackwardLayer>(),
        twin::<DinBackwardParams>(),
        twin::<SdimSignatureParams>(),
        twin::<SdimCheckParams>(),
        twin::<SdimItemsParams>(),
        twin::<SdimEncodeParams>(),
        twin::<SdimCombineParams>(),
        twin::<SdimAddParams>(),
        twin::<SdimDecayParams>(),
        twin::<SdimWeighParams>(),
        twin::<SdimScatterParams>(),
        twin::<SdimSumsParams>(),
        twin::<SdimQueryParams>(),
        twin::<SdimBucketParams>(),
        twin::<SdimTargetGradientParams>(),
        twin::<SdimMatchParams>(),
        twin::<SdimGatherParams>(),
        twin::<TinPositions>(),
        twin::<TinOutputPointers>(),
        twin::<TinParams>(),
        twin::<TinPrepareParams>(),
        twin::<TinCombineParams>(),
        twin::<TinBackwardParams>(),
        twin::<TinStatesParams>(),
        twin::<TinTargetGradientParams>(),
        twin::<TinCountParams>(),
        twin::<TinPositionGradientParams>(),
    ]
}

/// Look-ups and what follows from them.
fn of_rows() -> Vec<Described> {
    vec![
        twin::<LookupColumn>(),
        twin::<LookupParams>(),
        twin::<SortIdsParams>(),
        twin::<OrderCheckParams>(),
        twin::<BagsOfRowsParams>(),
        twin::<TableGradientParams>(),
        twin::<UpdateRowsParams>(),
        twin::<BagIdsParams>(),
        twin::<WeightGradientParams>(),
    ]
}

/// Searches, selections, decoupled embeddings.
fn of_searches() -> Vec<Described> {
    vec![
        twin::<KeptLists>(),
        twin::<SelectParams>(),
        twin::<SearchParams>(),
        twin::<SearchNewestParams>(),
        twin::<PackSignsParams>(),
        twin::<SelectedInputs>(),
        twin::<SelectedAttentionParams>(),
        twin::<SimilarityHistogramParams>(),
        twin::<SelectedGradientParams>(),
        twin::<SelectedWidenParams>(),
        twin::<SelectedNarrowParams>(),
        twin::<SelectedGammasParams>(),
        twin::<SelectedSimilaritiesParams>(),
        twin::<SelectedSlotsParams>(),
        twin::<SelectedSlotRowsParams>(),
        twin::<SelectedSlotBagsParams>(),
        twin::<Rows>(),
        twin::<Scoring>(),
        twin::<DecoupledAggregateParams>(),
        twin::<DecoupledSearchParams>(),
        twin::<DecoupledAttendParams>(),
        twin::<DecoupledKeepParams>(),
        twin::<DecoupledKeptRowsParams>(),
        twin::<DecoupledScoreGradientsParams>(),
        twin::<DecoupledSpan>(),
        twin::<DecoupledTile>(),
        twin::<DecoupledMerge>(),
        twin::<DecoupledPairsParams>(),
        twin::<DecoupledMergeStatesParams>(),
        twin::<DecoupledPairSumsParams>(),
        twin::<DecoupledMergeSumsParams>(),
        twin::<DecoupledAllIdsParams>(),
        twin::<DecoupledScaleParams>(),
        twin::<DecoupledAddRowsParams>(),
        twin::<ChannelPiece>(),
        twin::<ChannelsAxesParams>(),
        twin::<ChannelsAxesGradientParams>(),
        twin::<ChannelsRouteParams>(),
        twin::<ChannelsSelectParams>(),
        twin::<ChannelsPoolParams>(),
        twin::<ChannelsGradientParams>(),
    ]
}

#[test]
fn twins_have_the_same_names_types_and_offsets() {
    let source = Source::of_kernels();
    for (name, fields) in twins() {
        assert_eq!(
            source.fields(name).as_ref(),
            Some(&fields),
            "{name}: kernels/ on the left, src/cuda on the right"
        );
    }
}

#[test]
fn two_swapped_fields_are_noticed() {
    let path =
        files("kernels", &["cuh"]).into_iter().find(|path| path.ends_with("target_attention/attend.cuh"));
    let text = fs::read_to_string(path.expect("the header")).expect("text");
    let mut source = Source::of_kernels();
    let (as_declared, swapped) =
        ("const void *keys;\n    const void *values;", "const void *values;\n    const void *keys;");
    assert!(text.contains(as_declared), "the header declares keys and values");
    source.read(&text.replace(as_declared, swapped));
    let fields = source.fields(TargetAttentionParams::NAME).expect("the struct");
    assert_ne!(fields, TargetAttentionParams::fields());
}

#[test]
fn every_twin_and_every_kernel_parameter_is_compared() {
    let compared: Vec<&str> = twins().into_iter().map(|(name, _)| name).collect();
    for path in
        files("src/cuda", &["rs"]).into_iter().filter(|path| !path.to_string_lossy().contains("contracts"))
    {
        let text = fs::read_to_string(&path).expect("text");
        for block in text.split("\ntwins! {").skip(1) {
            let block = block.split("\n}").next().unwrap_or("");
            for declared in block.split("struct ").skip(1) {
                let name = declared.split(' ').next().unwrap_or("");
                assert!(compared.contains(&name), "{name} of {} is not compared", path.display());
            }
        }
        assert!(
            !text.contains("#[repr(C)]") || path.ends_with("twin.rs"),
            "{} declares a struct for kernels without `twins!`",
            path.display()
        );
    }
    for path in files("kernels", &["cu", "cuh"]) {
        let text = fs::read_to_string(&path).expect("text");
        for parameters in text.split("__global__").skip(1) {
            let list = parameters.split_once("(const ").map_or("", |(_, list)| list);
            let name = list.split(' ').next().unwrap_or("");
            assert!(compared.contains(&name), "{name} of {} is not compared", path.display());
        }
    }
}
