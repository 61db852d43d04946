//! Builds Prometheus metric families from numbers. Only this file knows the `prometheus` crate's data
//! model.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

use super::metrics::BUCKETS;

/// One family under construction.
pub(crate) struct Family {
    kind: MetricType,
    family: MetricFamily,
    metrics: Vec<Metric>,
}

impl Family {
    /// A counter; `name` ends in `_total`.
    pub(crate) fn counter(name: &str, help: &str) -> Self {
        Self::new(MetricType::COUNTER, name, help)
    }

    pub(crate) fn gauge(name: &str, help: &str) -> Self {
        Self::new(MetricType::GAUGE, name, help)
    }

    /// A histogram over [`BUCKETS`], in seconds.
    pub(crate) fn histogram(name: &str, help: &str) -> Self {
        Self::new(MetricType::HISTOGRAM, name, help)
    }

    /// Adds one series.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows floats only")]
    pub(crate) fn add(&mut self, labels: &[(&str, &str)], value: u64) {
        self.add_float(labels, value as f64);
    }

    /// Adds one series with a fractional value.
    pub(crate) fn add_float(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::from_label(pairs(labels));
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    /// Adds one histogram series from plain bucket counts and the sum in seconds.
    pub(crate) fn add_histogram(&mut self, labels: &[(&str, &str)], counts: &[u64], sum: f64) {
        let mut cumulative = 0;
        let mut buckets = Vec::with_capacity(BUCKETS.len());
        for (bound, count) in BUCKETS.iter().zip(counts) {
            cumulative += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(std::time::Duration::from_nanos(*bound).as_secs_f64());
            bucket.set_cumulative_count(cumulative);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(sum);
        histogram.set_bucket(buckets);
        let mut metric = Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }

    /// The family, unless it has no series.
    pub(crate) fn done(mut self, into: &mut Vec<MetricFamily>) {
        if !self.metrics.is_empty() {
            self.family.set_metric(self.metrics);
            into.push(self.family);
        }
    }

    fn new(kind: MetricType, name: &str, help: &str) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self { kind, family, metrics: Vec::new() }
    }
}

fn pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}
