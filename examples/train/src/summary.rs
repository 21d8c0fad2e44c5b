//! What the program prints.

use crate::cost::Cost;
use crate::data::Log;
use crate::estimates::{Estimate, Estimates};
use crate::groups::{self, GROUPS, Group};
use crate::options::Options;
use crate::protocol::Request;
use crate::report::{count, counted, figures, note, table};
use crate::samples::NegativesFrom;
use crate::systems::System;
use crate::training::{Data, Trained};

/// What came out of one system.
pub(crate) struct Outcomes {
    pub(crate) system: System,
    /// One for each seed.
    pub(crate) runs: Vec<Trained>,
    pub(crate) estimates: Estimates,
    /// With longseq, and with candle's own operations.
    pub(crate) costs: Option<[Cost; 2]>,
}

impl Outcomes {
    /// Seconds of an epoch of training: the mean of all of them.
    pub(crate) fn seconds(&self) -> f64 {
        let epochs: usize = self.runs.iter().map(|run| run.curve.len()).sum();
        self.runs.iter().map(|run| run.seconds).sum::<f64>() / epochs.max(1) as f64
    }

    /// GAUC of validation at the best epochs: the mean over seeds.
    pub(crate) fn validation(&self) -> f64 {
        let best = |run: &Trained| run.curve.get(run.best).map_or(f64::NAN, |epoch| epoch.valid);
        self.runs.iter().map(best).sum::<f64>() / self.runs.len().max(1) as f64
    }

    /// The lowest and the highest of the seeds' own GAUC.
    fn spread(&self) -> [f64; 2] {
        let of_seeds = self.runs.iter().map(|run| Estimates::new(&[&run.scores]).gauc.value);
        of_seeds.fold([f64::MAX, f64::MIN], |[low, high], value| [low.min(value), high.max(value)])
    }
}

/// Data and setting.
pub(crate) fn header(log: &Log, data: &Data, options: &Options) -> String {
    let seeds = counted(options.seeds, "seed");
    [
        format!("{}: {}, {}, {}", log.name, counted(log.users.len(), "user"), counted(log.items, "item"), counted(log.events(), "event")),
        format!(
            "Trained on {} events, up to {} of them an epoch; tested on {}' last events, each among {}",
            count(data.train.len()),
            count(options.samples()),
            counted(data.test.len(), "user"),
            counted(options.candidates, "negative"),
        ),
        format!(
            "Embeddings of {}, the newest {}, {} an event (of {}), batches of {}, rates {} and {} (tables, decay {}), {seeds} from {}",
            options.width,
            counted(options.history, "behaviour"),
            counted(options.negatives, "negative"),
            match options.negatives_from {
                NegativesFrom::Met => "items that training has met",
                NegativesFrom::All => "all items",
            },
            options.batch,
            options.rate,
            options.table_rate,
            options.table_decay,
            options.seed,
        ),
    ]
    .join("\n")
}

/// Quality of all systems.
pub(crate) fn quality(all: &[Outcomes], options: &Options) -> String {
    let mut header = vec!["system", "AUC", "GAUC", "HR@10", "NDCG@10", "best epoch", "s/epoch", "s in all"];
    if options.seeds > 1 {
        header.push("GAUC of seeds");
    }
    let mut rows = vec![header.into_iter().map(String::from).collect::<Vec<_>>()];
    for outcomes in all {
        let estimates = &outcomes.estimates;
        let mut row = vec![outcomes.system.name().to_owned()];
        row.extend([estimates.auc, estimates.gauc, estimates.hit_rate, estimates.ndcg].map(interval));
        let epochs = outcomes.runs.iter().map(|run| format!("{} of {}", run.best + 1, run.curve.len()));
        row.push(epochs.collect::<Vec<_>>().join(", "));
        row.push(figures(outcomes.seconds()));
        row.push(figures(outcomes.runs.iter().map(|run| run.seconds).sum()));
        if options.seeds > 1 {
            let [low, high] = outcomes.spread();
            row.push(format!("{low:.4} to {high:.4}"));
        }
        rows.push(row);
    }
    format!("\nQuality of the test\n\n{}", table(&rows))
}

/// GAUC by how often training has met the held-out item, of validation and test.
pub(crate) fn groups(all: &[Outcomes], data: &Data) -> String {
    let meetings = data.train.meetings();
    let names = GROUPS.iter().map(|(name, _)| *name).chain(["all but never"]);
    let mut rows = vec![["system", "part"].into_iter().chain(names).map(String::from).collect::<Vec<_>>()];
    for outcomes in all {
        let parts: [Part<'_>; 2] =
            [("validation", &data.valid, |run| &run.valid[..]), ("test", &data.test, |run| &run.scores[..])];
        for (part, requests, scores) in parts {
            let scores: Vec<&[Vec<f32>]> = outcomes.runs.iter().map(scores).collect();
            let groups = groups::groups(&meetings, requests, &scores);
            let cell = |group: &Group| match group.users {
                0 => "none".to_owned(),
                users => format!("{:.4} ({})", group.gauc, count(users)),
            };
            let cells = groups.iter().map(cell);
            rows.push([outcomes.system.name(), part].map(String::from).into_iter().chain(cells).collect());
        }
    }
    format!("\nGAUC by how often training has met the held-out item (of how many users)\n\n{}", table(&rows))
}

/// A part of the log: its name, its requests, and their scores in a run.
type Part<'a> = (&'a str, &'a [Request], fn(&Trained) -> &[Vec<f32>]);

/// A mean and its interval.
fn interval(estimate: Estimate) -> String {
    format!("{:.3} [{:.3}, {:.3}]", estimate.value, estimate.low, estimate.high)
}

/// Time and memory of both engines; nothing if they were not measured.
pub(crate) fn costs(all: &[Outcomes], options: &Options) -> Option<String> {
    let header = ["system", "s/epoch", "eager", "times", "MB/step", "eager", "times"];
    let mut rows = vec![header.map(String::from).to_vec()];
    for outcomes in all {
        let Some([ours, eager]) = outcomes.costs else { continue };
        let megabytes = |cost: Cost| cost.bytes as f64 / 1e6;
        rows.push(vec![
            outcomes.system.name().into(),
            figures(ours.seconds),
            figures(eager.seconds),
            figures(eager.seconds / ours.seconds),
            figures(megabytes(ours)),
            figures(megabytes(eager)),
            figures(megabytes(eager) / megabytes(ours)),
        ]);
    }
    let title = format!(
        "Training by longseq on jagged batches, and by candle's own operations on padded ones ({} timed)",
        counted(options.timed_steps(), "step")
    );
    (rows.len() > 1).then(|| format!("\n{title}\n\n{}", table(&rows)))
}

/// What the figures mean, and what they say about long histories.
pub(crate) fn notes(all: &[Outcomes], options: &Options) -> String {
    let mut notes = vec![
        "In brackets: the interval that 95 % of 1000 bootstrap draws of the users fall into. AUC is over all pairs of a held-out item and a \
         negative, GAUC the mean of each user's own, which `rank` calls AUC; its requests are the same."
            .to_owned(),
        "GAUC by how often training has met the held-out item: ids say nothing of items that training has not met, and the log has no others of \
         them than held-out ones. So the score that they have by the choice of negatives (--negatives-from) moves the mean of all users, and is no \
         merit of a system; the last column leaves their users out."
            .to_owned(),
        "The test was read once per run, at the epoch that is best in GAUC on validation, each user's last event but one. Nothing is chosen by it."
            .to_owned(),
        "s/epoch are those of training, the drawing of samples included, validation not. The comparison with candle takes batches in order of \
         length, which costs padding the least, and gives each step the same work; MB are the most that a step has on the heap beyond what was \
         there before it."
            .to_owned(),
    ];
    let of = |system| all.iter().find(|outcomes| outcomes.system == system).map(|found| found.estimates.gauc);
    if let Some(mean) = of(System::Mean) {
        let beaten = |outcomes: &&Outcomes| {
            outcomes.system != System::Mean && outcomes.estimates.gauc.value <= mean.value
        };
        let names: Vec<&str> = all.iter().filter(beaten).map(|outcomes| outcomes.system.name()).collect();
        if !names.is_empty() {
            notes.push(format!(
                "No better than mean pooling in this run: {}. The tests of this program train target attention, DIN, SDIM, DARE and TIN on a log \
                 whose long-range interest is known, which they find and mean pooling cannot.",
                names.join(", ")
            ));
        }
    }
    if options.quick {
        notes.push("--quick: too short for any figure to mean something.".into());
    }
    format!("\n{}", notes.iter().map(|text| note(text)).collect::<Vec<_>>().join("\n"))
}
