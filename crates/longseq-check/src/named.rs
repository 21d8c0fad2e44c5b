//! Cases of any operation, with a name.

use std::fmt;

use longseq::prelude::*;

use crate::case::{Call, Calls, Case, Failure, GradientBits, Rules, check};
use crate::cases::small;
use crate::decoupled::{DecoupledBackwardCase, DecoupledCase, DecoupledGradientOutput, DecoupledOutput};
use crate::din::{DinBackwardCase, DinCase, StatisticsBits, StatisticsCase};
use crate::interest_channels::{ChannelsBackwardCase, ChannelsCase, ChannelsOutput};
use crate::lookup::{
    LookupBackwardCase, LookupCase, LookupOutput, SparseGradientBits, UpdateRowsCase, UpdatedBits,
};
use crate::sample;
use crate::sdim::{SdimBackwardCase, SdimCase, SdimGradientOutput, SdimOutput};
use crate::search::{NewestCase, SearchCase, SearchOutput};
use crate::selected::{
    HistogramCase, SelectedBackwardCase, SelectedCase, SelectedTableBackwardCase, SelectedTableCase,
    SelectedTableGradientOutput,
};
use crate::target_attention::{
    AttentionBackwardCase, AttentionCase, AttentionOutput, MergeBackwardCase, MergeCase,
};
use crate::tin::{TinBackwardCase, TinCase, TinOutput};

/// A case with a name, and the one of its calls that the name is about.
#[derive(Debug, Clone)]
pub struct Named {
    /// The name.
    pub name: &'static str,
    /// The call that the name is about, as [`Calls`] know it.
    pub operation: &'static str,
    /// The case.
    pub case: AnyCase,
}

/// The least that an operation must do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Additions and multiplications.
    pub flops: u64,
    /// Bytes read and written, each once.
    pub bytes: u64,
}

impl Named {
    /// The stem of the operation.
    pub fn stem(&self) -> &'static str {
        self.case.stem()
    }

    /// Lets `with` make the call that the name is about, and only the calls that it needs.
    ///
    /// # Errors
    /// What a call returned.
    pub fn measure<B: Backend>(
        &self,
        backend: &B,
        with: &mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut calls = Only { operation: self.operation, with, made: false };
        self.case.run_with(backend, &mut calls)?;
        if calls.made {
            Ok(())
        } else {
            Err(Failure::new(format!("{}: no call {}", self.name, self.operation)))
        }
    }

    /// Bytes of memory that the call's loads are spread over: whole tables, otherwise what the call moves.
    pub fn footprint(&self) -> u64 {
        match &self.case {
            AnyCase::Decoupled(case) => case.table_bytes(self.operation),
            AnyCase::Lookup(case) => case.table_bytes(),
            AnyCase::UpdateRows(case) => (case.rows * case.width * size_of::<f32>()) as u64,
            _ => self.work().bytes,
        }
    }

    /// The least that the call must do, by the operation's own `flops` and `bytes`.
    pub fn work(&self) -> Work {
        match &self.case {
            AnyCase::Attention(case) => case.work(),
            AnyCase::AttentionBackward(case) => case.work(),
            AnyCase::Merge(case) => case.work(),
            AnyCase::MergeBackward(case) => case.work(),
            AnyCase::Din(case) => case.work(),
            AnyCase::DinBackward(case) => case.work(),
            AnyCase::DinStatistics(case) => case.work(),
            AnyCase::Sdim(case) => case.work(self.operation),
            AnyCase::SdimBackward(case) => case.work(self.operation),
            AnyCase::Decoupled(case) => case.work(self.operation),
            AnyCase::DecoupledBackward(case) => case.work(self.operation),
            AnyCase::Lookup(case) => case.work(),
            AnyCase::LookupBackward(case) => case.work(self.operation),
            AnyCase::UpdateRows(case) => case.work(),
            AnyCase::Search(case) => case.work(self.operation),
            AnyCase::Selected(case) => case.work(),
            AnyCase::SelectedBackward(case) => case.work(),
            AnyCase::SelectedTable(case) => case.work(),
            AnyCase::SelectedTableBackward(case) => case.work(),
            AnyCase::Histogram(case) => case.work(),
            AnyCase::Newest(case) => case.work(),
            AnyCase::Tin(case) => case.work(),
            AnyCase::TinBackward(case) => case.work(),
            AnyCase::Channels(case) => case.work(),
            AnyCase::ChannelsBackward(case) => case.work(),
        }
    }
}

/// Makes one call through `with`, and once before it what it reads.
struct Only<'a> {
    operation: &'static str,
    with: &'a mut dyn FnMut(&mut Call<'_>) -> Result<(), Failure>,
    made: bool,
}

impl Calls for Only<'_> {
    fn wants(&self, operation: &'static str) -> bool {
        // A query reads the table that `encode` wrote, a backward pass the ids that were sorted before.
        let needed = [("sdim_encode", "sdim_query"), ("sort_ids", "lookup_backward")];
        operation == self.operation || needed.contains(&(operation, self.operation))
    }

    fn make(&mut self, operation: &'static str, call: &mut Call<'_>) -> Result<(), Failure> {
        if operation == self.operation {
            self.made = true;
            (self.with)(call)
        } else if self.wants(operation) {
            call()
        } else {
            Ok(())
        }
    }
}

macro_rules! any_case {
    ($($variant:ident $case:ident $output:ty, $stem:literal;)*) => {
        /// Any operation's case.
        #[derive(Clone)]
        pub enum AnyCase {
            $(#[doc = concat!("A [`", stringify!($case), "`].")] $variant($case),)*
        }

        /// What the run of a case gave.
        #[derive(Debug, PartialEq)]
        pub enum AnyOutput {
            $(#[doc = concat!("Of a [`", stringify!($case), "`].")] $variant($output),)*
        }

        /// Prints the case inside as it prints by itself.
        impl fmt::Debug for AnyCase {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(case) => case.fmt(f),)*
                }
            }
        }

        $(impl From<&$case> for AnyCase {
            fn from(case: &$case) -> Self {
                Self::$variant(case.clone())
            }
        })*

        impl From<&AnyCase> for AnyCase {
            fn from(case: &AnyCase) -> Self {
                case.clone()
            }
        }

        impl AnyCase {
            /// The stem of the operation.
            pub fn stem(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $stem,)*
                }
            }

            /// How its rows are stored: `f32`, `f16`, `bf16` or `int8`.
            pub fn storage(&self) -> &'static str {
                match self {
                    $(Self::$variant(case) => case.storage(),)*
                }
            }
        }

        impl Case for AnyCase {
            type Output = AnyOutput;

            fn run_with<B: Backend>(&self, backend: &B, calls: &mut dyn Calls) -> Result<AnyOutput, Failure> {
                Ok(match self {
                    $(Self::$variant(case) => AnyOutput::$variant(case.run_with(backend, calls)?),)*
                })
            }

            fn compare(&self, output: &AnyOutput, rules: Rules) -> Result<(), Failure> {
                match (self, output) {
                    $((Self::$variant(case), AnyOutput::$variant(output)) => case.compare(output, rules),)*
                    _ => Err(Failure::new("the output of another case")),
                }
            }
        }
    };
}

any_case! {
    Attention AttentionCase AttentionOutput, "target_attention";
    AttentionBackward AttentionBackwardCase GradientBits, "target_attention_backward";
    Merge MergeCase AttentionOutput, "target_attention";
    MergeBackward MergeBackwardCase GradientBits, "target_attention_backward";
    Din DinCase Vec<u8>, "din";
    DinBackward DinBackwardCase GradientBits, "din_backward";
    DinStatistics StatisticsCase StatisticsBits, "din_backward";
    Sdim SdimCase SdimOutput, "sdim";
    SdimBackward SdimBackwardCase SdimGradientOutput, "sdim_backward";
    Decoupled DecoupledCase DecoupledOutput, "decoupled";
    DecoupledBackward DecoupledBackwardCase DecoupledGradientOutput, "decoupled_backward";
    Lookup LookupCase LookupOutput, "lookup";
    LookupBackward LookupBackwardCase Vec<SparseGradientBits>, "lookup_backward";
    UpdateRows UpdateRowsCase UpdatedBits, "lookup_backward";
    Search SearchCase SearchOutput, "search";
    Selected SelectedCase AttentionOutput, "selected";
    SelectedBackward SelectedBackwardCase GradientBits, "selected_backward";
    SelectedTable SelectedTableCase AttentionOutput, "selected_tables";
    SelectedTableBackward SelectedTableBackwardCase SelectedTableGradientOutput, "selected_tables";
    Histogram HistogramCase Vec<u32>, "selected";
    Newest NewestCase Vec<u32>, "selected";
    Tin TinCase TinOutput, "tin";
    TinBackward TinBackwardCase GradientBits, "tin_backward";
    Channels ChannelsCase ChannelsOutput, "interest_channels";
    ChannelsBackward ChannelsBackwardCase GradientBits, "interest_channels_backward";
}

/// Checks the small cases of a stem.
///
/// # Panics
/// Where one fails.
#[track_caller]
pub fn assert_small_cases<B: Backend>(stem: &str, backend: &B, rules: Rules) {
    for named in small().iter().filter(|named| named.stem() == stem) {
        if !sample::has_case(backend, &named.case, rules) {
            continue;
        }
        if let Err(failure) = check(&named.case, backend, rules) {
            panic!("{}: {failure}", named.name);
        }
    }
}
