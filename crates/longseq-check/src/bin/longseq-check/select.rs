//! Which backends, operations and storage types a command is about.

use clap::Args;
use longseq::AnyBackend;
use longseq_check::bench::Selection;
use longseq_check::device::Kind;
use longseq_check::lookup::Storage;
use longseq_check::registry::STEMS;

/// Options that every command has.
#[derive(Args, Clone, Debug)]
pub(crate) struct Select {
    /// The backend: cpu, wgpu or cuda; all of them by default.
    #[arg(short, long, value_parser = str::parse::<Kind>)]
    backend: Option<Kind>,
    /// The operation's stem, such as din; all of them by default.
    #[arg(short = 'o', long = "op", value_name = "STEM", value_parser = STEMS)]
    op: Option<String>,
    /// The storage type; all of them by default.
    #[arg(short, long, value_parser = ["f32", "f16", "bf16", "int8"])]
    precision: Option<String>,
}

impl Select {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        self.backend.map_or(Kind::ALL.to_vec(), |backend| vec![backend])
    }

    /// The devices of the backends that have one.
    pub(crate) fn devices(&self) -> Vec<(&'static str, AnyBackend)> {
        self.kinds().into_iter().filter_map(|kind| Some((kind.name(), kind.device()?))).collect()
    }

    /// The stem asked for.
    pub(crate) fn operation(&self) -> Option<&str> {
        self.op.as_deref()
    }

    pub(crate) fn stems(&self) -> Vec<&str> {
        self.op.as_deref().map_or(STEMS.to_vec(), |stem| vec![stem])
    }

    /// The storage type asked for.
    pub(crate) fn precision(&self) -> Option<&str> {
        self.precision.as_deref()
    }

    pub(crate) fn storages(&self) -> Vec<Storage> {
        let wanted = |storage: &Storage| self.precision().is_none_or(|name| name == storage.name());
        Storage::ALL.into_iter().filter(wanted).collect()
    }

    pub(crate) fn selection(&self) -> Selection {
        Selection {
            backends: self.kinds(),
            stems: self.stems().into_iter().map(str::to_owned).collect(),
            storage: self.precision.clone(),
        }
    }
}
