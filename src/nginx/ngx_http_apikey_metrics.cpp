// Writes the counters of the shared zone and the state of adoption as Prometheus text.
// Called for each scrape, in one worker, for all of them. Reads the whole bucket table: not for the request path.
#include "ngx_http_apikey_metrics.hpp"

#include <signal.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <span>

#include "apikey/version.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_rows.hpp"
#include "ngx_http_apikey_store.hpp"
#include "ngx_http_apikey_thread.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kChunk = 16384;
constexpr std::array<std::string_view, kCredentialForms> kForms = {"none", "own", "foreign"};
constexpr std::array<std::string_view, kAdoptionResultCount> kResults = {
    "adopted", "refused", "damaged", "not_trusted", "unsupported", "unreadable", "failed", "veto", "taken_over"};
constexpr std::array<std::string_view, kCostMissCount> kCostMisses = {
    "no_figure", "not_a_number", "too_large", "not_json", "encoded", "bad_variable",
    "head",      "not_modified", "partial",   "slice",    "aborted"};

// A response body that grows by buffers of the request's pool.
class Text {
 public:
  explicit Text(ngx_pool_t* pool) noexcept : pool_(pool) {}

  Text& operator<<(std::string_view text) noexcept {
    while (!text.empty() && has_room()) {
      const std::size_t n = std::min(text.size(), static_cast<std::size_t>(last_->buf->end - last_->buf->last));
      last_->buf->last = ngx_cpymem(last_->buf->last, text.data(), n);
      text.remove_prefix(n);
      length_ += n;
    }
    return *this;
  }
  Text& operator<<(std::uint64_t number) noexcept { return print("%uL", number); }

  // Nanoseconds as seconds, e.g. 0.00025.
  Text& seconds(std::uint64_t ns) noexcept {
    print("%uL", ns / kNsPerSecond);
    std::uint64_t rest = ns % kNsPerSecond;
    int digits = 9;
    while (rest != 0 && rest % 10 == 0) {
      rest /= 10;
      --digits;
    }
    std::array<char, 10> text;
    for (int i = digits; i > 0; --i, rest /= 10) {
      text[static_cast<std::size_t>(i)] = static_cast<char>('0' + rest % 10);
    }
    text.front() = '.';
    return ns % kNsPerSecond == 0 ? *this
                                  : *this << std::string_view(text.data(), static_cast<std::size_t>(digits) + 1);
  }

  // The inside of a label's quotes. What is not UTF-8 would make the whole page unreadable.
  Text& label(std::string_view value) noexcept {
    std::array<u_char, 256> bytes;
    std::copy_n(value.begin(), std::min(value.size(), bytes.size()), bytes.begin());
    u_char* at = bytes.data();
    u_char* const end = at + std::min(value.size(), bytes.size());
    while (at < end) {
      u_char* const begin = at;
      if (*at < 0x80) {  // ngx_utf8_decode() knows the longer ones only
        ++at;
      } else if (ngx_utf8_decode(&at, static_cast<std::size_t>(end - at)) > 0x10ffff) {
        at = begin + 1;
        *this << "?";
        continue;
      }
      const std::string_view one(static_cast<const char*>(static_cast<void*>(begin)),
                                 static_cast<std::size_t>(at - begin));
      *this << (one == "\n" ? "\\n" : one == "\"" ? "\\\"" : one == "\\" ? "\\\\" : one);
    }
    return *this;
  }

  void family(std::string_view name, std::string_view type, std::string_view help) noexcept {
    *this << "# HELP " << name << " " << help << "\n# TYPE " << name << " " << type << "\n";
  }

  // RETURNS: null when there was no memory.
  [[nodiscard]] ngx_chain_t* finish() noexcept {
    if (!has_memory_ || last_ == nullptr) {
      return nullptr;
    }
    last_->buf->last_buf = 1;
    last_->buf->last_in_chain = 1;
    return first_;
  }
  [[nodiscard]] std::size_t length() const noexcept { return length_; }

 private:
  template <typename... Args>
  Text& print(const char* format, Args... args) noexcept {
    std::array<u_char, 64> digits;
    const u_char* end = ngx_snprintf(digits.data(), digits.size(), format, args...);
    return *this << std::string_view(static_cast<const char*>(static_cast<void*>(digits.data())),
                                     static_cast<std::size_t>(end - digits.data()));
  }

  bool has_room() noexcept {
    if (last_ != nullptr && last_->buf->last < last_->buf->end) {
      return true;
    }
    ngx_chain_t* link = ngx_alloc_chain_link(pool_);
    ngx_buf_t* buffer = link == nullptr ? nullptr : ngx_create_temp_buf(pool_, kChunk);
    if (buffer == nullptr) {
      has_memory_ = false;
      return false;
    }
    link->buf = buffer;
    link->next = nullptr;
    (last_ == nullptr ? first_ : last_->next) = link;
    last_ = link;
    return true;
  }

  ngx_pool_t* pool_;
  ngx_chain_t* first_ = nullptr;
  ngx_chain_t* last_ = nullptr;
  std::size_t length_ = 0;
  bool has_memory_ = true;
};

std::span<StoreConf* const> stores_of(const MainConf& main) noexcept {
  return {static_cast<StoreConf**>(main.stores.elts), main.stores.nelts};
}

std::uint64_t count_of(const NodeCounters& root, std::size_t env, std::size_t outcome, std::size_t form) noexcept {
  std::uint64_t sum = 0;
  for (const CounterShard& shard : root.shards) {
    sum += value_of(shard.requests[env][outcome][form]);
  }
  return sum;
}

void write_requests(Text& out, const NodeCounters& root) noexcept {
  out.family("apikey_requests_total", "counter", "Client requests by what was decided.");
  for (std::size_t env = 0; env < kEnvCount; ++env) {
    std::array<char, kMaxEnvLength> buffer;
    std::string_view name = env == kEnvNone ? "" : "other";
    if (env < kMaxEnvLabels && !root.envs.text(env, buffer, name)) {
      continue;
    }
    for (std::size_t i = 0; i < kCountedOutcomes * kCredentialForms; ++i) {
      const std::size_t outcome = i / kCredentialForms;
      const std::size_t form = i % kCredentialForms;
      const std::uint64_t count = count_of(root, env, outcome, form);
      if (count != 0) {
        const auto name_of = outcome < kOutcomeCount ? outcome_name : dry_run_name;
        out << "apikey_requests_total{outcome=\"" << name_of(static_cast<Outcome>(outcome % kOutcomeCount))
            << "\",env=\"";
        out.label(name) << "\",form=\"" << kForms[form] << "\"} " << count << "\n";
      }
    }
  }
}

void write_limited(Text& out, const NodeCounters& root) noexcept {
  out.family("apikey_limited_total", "counter", "Requests refused by a limit.");
  for (std::size_t i = 0; i <= kMaxLimitLabels; ++i) {
    const std::uint64_t count = value_of(root.limited[i]);
    std::array<char, decltype(root.limits)::kMaxLength> buffer;
    std::string_view text;
    if (count == 0 || (i < kMaxLimitLabels && !root.limits.text(i, buffer, text))) {
      continue;
    }
    const std::size_t zero = std::min(text.find('\0'), text.size());
    const std::string_view plan = i < kMaxLimitLabels ? text.substr(0, zero) : "other";
    const std::string_view limit = i < kMaxLimitLabels ? text.substr(std::min(zero + 1, text.size())) : "other";
    out << "apikey_limited_total{plan=\"";
    out.label(plan) << "\",limit=\"";
    out.label(limit) << "\"} " << count << "\n";
  }
}

void write_cost_misses(Text& out, const NodeCounters& root) noexcept {
  out.family("apikey_cost_misses_total", "counter", "Costs that could not be read, so that what was reserved counts.");
  for (std::size_t i = 0; i < kCostMissCount; ++i) {
    out << "apikey_cost_misses_total{reason=\"" << kCostMisses[i] << "\"} " << value_of(root.cost_misses[i]) << "\n";
  }
}

// `label` is empty, or `store="x"` of which only the value is given.
template <std::size_t N>
void write_histogram(Text& out, std::string_view name, const StoreConf* store, const Histogram<N>& histogram,
                     const std::array<std::uint64_t, N>& bounds_ns) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i <= N; ++i) {
    sum += value_of(histogram.counts[i]);
    out << name << "_bucket{";
    if (store != nullptr) {
      out << "store=\"";
      out.label(view(store->name)) << "\",";
    }
    out << "le=\"";
    if (i < N) {
      out.seconds(bounds_ns[i]);
    } else {
      out << "+Inf";
    }
    out << "\"} " << sum << "\n";
  }
  for (const bool is_sum : {true, false}) {
    out << name << (is_sum ? "_sum" : "_count");
    if (store != nullptr) {
      out << "{store=\"";
      out.label(view(store->name)) << "\"}";
    }
    out << " ";
    if (is_sum) {
      out.seconds(value_of(histogram.sum_ns)) << "\n";
    } else {
      out << sum << "\n";
    }
  }
}

// One line per store of a gauge.
template <typename F>
void write_gauge(Text& out, const MainConf& main, std::string_view name, std::string_view help, F&& value) noexcept {
  out.family(name, "gauge", help);
  for (const StoreConf* store : stores_of(main)) {
    out << name << "{store=\"";
    out.label(view(store->name)) << "\"} " << static_cast<std::uint64_t>(value(*store)) << "\n";
  }
}

void write_snapshots(Text& out, const MainConf& main) noexcept {
  const auto active = [&](const StoreConf& store) { return adoption_of(main, store).read().active; };
  write_gauge(out, main, "apikey_snapshot_generation", "Generation of the active snapshot, 0 when there is none.",
              [&](const StoreConf& store) { return active(store).generation; });
  write_gauge(out, main, "apikey_snapshot_veto_generation",
              "Generation that only takes away, because this nginx lacks what it needs; 0 when there is none.",
              [&](const StoreConf& store) { return adoption_of(main, store).read().veto.generation; });
  write_gauge(out, main, "apikey_snapshot_keys", "Keys in the active snapshot.",
              [&](const StoreConf& store) { return active(store).keys; });
  write_gauge(out, main, "apikey_snapshot_created_timestamp_seconds", "When the active snapshot was built.",
              [&](const StoreConf& store) { return active(store).created; });
  write_gauge(out, main, "apikey_snapshot_stale", "1 when the active snapshot is older than max_age.",
              [&](const StoreConf& store) {
                const AdoptedFile current = active(store);
                return current.change != 0 && is_stale(store, current.created) ? 1U : 0U;
              });
  write_gauge(out, main, "apikey_workers_fenced",
              "Workers that answer 503, because they cannot open the snapshot that was adopted last.", count_fenced);
  write_gauge(out, main, "apikey_worker_generation_skew",
              "Changes of snapshot that the slowest living worker has not made yet.", [&](const StoreConf& store) {
                const Adoption& adoption = adoption_of(main, store);
                const std::uint64_t oldest = adoption.oldest_held(is_worker_alive);
                const std::uint64_t newest = adoption.read().active.change;
                return oldest == 0 || oldest > newest ? 0 : newest - oldest;
              });
}

void write_adoptions(Text& out, const MainConf& main) noexcept {
  out.family("apikey_snapshot_adoptions_total", "counter", "Snapshots that were verified, by what came of it.");
  for (const StoreConf* store : stores_of(main)) {
    for (std::size_t i = 0; i < kAdoptionResultCount; ++i) {
      out << "apikey_snapshot_adoptions_total{store=\"";
      out.label(view(store->name)) << "\",result=\"" << kResults[i] << "\"} "
                                   << value_of(store->runtime->counters->results[i]) << "\n";
    }
  }
  out.family("apikey_adoption_seconds", "histogram", "Time from noticing a snapshot to the verdict on it.");
  for (const StoreConf* store : stores_of(main)) {
    write_histogram(out, "apikey_adoption_seconds", store, store->runtime->counters->seconds, kAdoptionBoundsNs);
  }
}

void write_zone(Text& out, const MainConf& main) noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const std::uint64_t ns =
      static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond + static_cast<std::uint64_t>(now.tv_nsec);
  const LimitTables& tables = limit_tables(main);
  const BucketTable::Usage usage = tables.buckets->usage({ns});
  out.family("apikey_zone_slots", "gauge", "Token buckets of keys and owners the shared zone has room for.");
  out << "apikey_zone_slots " << usage.slots << "\n";
  out.family("apikey_zone_slots_used", "gauge",
             "Token buckets of keys and owners that are not full, and so cannot make room for others.");
  out << "apikey_zone_slots_used " << usage.used << "\n";
  out.family("apikey_zone_forced_evictions_total", "counter",
             "Buckets of keys and owners in use that had to make room; above 0 the zone is too small.");
  out << "apikey_zone_forced_evictions_total " << usage.forced_evictions << "\n";
  const BucketTable::Usage chosen = tables.client_buckets->usage({ns});
  out.family("apikey_zone_client_slots", "gauge",
             "Token buckets the shared zone has room for of subjects that clients choose: values and addresses.");
  out << "apikey_zone_client_slots " << chosen.slots << "\n";
  out.family("apikey_zone_client_slots_used", "gauge",
             "Token buckets of subjects that clients choose that are not full.");
  out << "apikey_zone_client_slots_used " << chosen.used << "\n";
  out.family(
      "apikey_zone_client_forced_evictions_total", "counter",
      "Buckets in use of subjects that clients choose that had to make room; newcomers begin with an empty one.");
  out << "apikey_zone_client_forced_evictions_total " << chosen.forced_evictions << "\n";
}

void write_state(Text& out, const MainConf& main) noexcept {
  const NodeHead& header = *node_head(main);
  const QuotaTable::Usage quotas = quota_table(main).usage({wall_us()});
  out.family("apikey_quota_slots", "gauge", "Quotas the state has room for.");
  out << "apikey_quota_slots " << quotas.slots << "\n";
  out.family("apikey_quota_slots_used", "gauge",
             "Quotas whose window is not over; when all slots are, requests with new ones are answered with 503.");
  out << "apikey_quota_slots_used " << quotas.used << "\n";
  out.family("apikey_requests_in_flight", "gauge",
             "Requests in flight under limits of concurrency, each limit by itself.");
  const LimitTables& tables = limit_tables(main);
  out << "apikey_requests_in_flight " << tables.flights->usage().in_flight + tables.client_flights->usage().in_flight
      << "\n";
  out.family("apikey_state_checkpoint_timestamp_seconds", "gauge",
             "The moment up to which all use of quotas is in the checkpoint; 0: there is none.");
  out << "apikey_state_checkpoint_timestamp_seconds ";
  out.seconds(header.checkpoint_us.load() * 1000) << "\n";
  out.family("apikey_state_write_errors_total", "counter", "Checkpoints that could not be written.");
  out << "apikey_state_write_errors_total " << header.checkpoint_errors.load() << "\n";
}

void write_usage(Text& out, const MainConf& main) noexcept {
  const UsageTable::Usage usage = usage_table(main).usage();
  out.family("apikey_usage_slots", "gauge", "Pairs of key and hour the state has room for until they are collected.");
  out << "apikey_usage_slots " << usage.slots << "\n";
  out.family("apikey_usage_slots_used", "gauge", "Pairs of key and hour that were not collected for good yet.");
  out << "apikey_usage_slots_used " << usage.used << "\n";
  out.family("apikey_usage_overflow_total", "counter",
             "Requests counted without their key; above 0 the zone is too small, or nobody collects.");
  out << "apikey_usage_overflow_total " << usage.overflows << "\n";
}

void write_all(Text& out, const MainConf& main) noexcept {
  const NodeCounters& root = node_counters(main);
  out.family("apikey_info", "gauge", "The version of the module.");
  out << "apikey_info{version=\"" << kVersion << "\"} 1\n";
  write_requests(out, root);
  write_limited(out, root);
  write_cost_misses(out, root);
  out.family("apikey_decision_seconds", "histogram", "Time of a decision, measured for one in 64.");
  write_histogram(out, "apikey_decision_seconds", nullptr, root.decision, kDecisionBoundsNs);
  write_snapshots(out, main);
  write_adoptions(out, main);
  write_zone(out, main);
  write_state(out, main);
  write_usage(out, main);
}

}  // namespace

ngx_int_t on_metrics(ngx_http_request_t* r) noexcept {
  if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
    return NGX_HTTP_NOT_ALLOWED;
  }
  const ngx_int_t discarded = ngx_http_discard_request_body(r);
  if (discarded != NGX_OK) {
    return discarded;
  }
  Text out(r->pool);
  write_all(out, *main_conf(r));
  ngx_chain_t* body = out.finish();
  if (body == nullptr) {
    return NGX_HTTP_INTERNAL_SERVER_ERROR;
  }
  r->headers_out.status = NGX_HTTP_OK;
  r->headers_out.content_length_n = static_cast<off_t>(out.length());
  ngx_str_set(&r->headers_out.content_type, "text/plain; version=0.0.4; charset=utf-8");
  r->headers_out.content_type_len = r->headers_out.content_type.len;
  r->headers_out.content_type_lowcase = nullptr;
  const ngx_int_t sent = ngx_http_send_header(r);
  return sent == NGX_ERROR || sent > NGX_OK || r->header_only ? sent : ngx_http_output_filter(r, body);
}

}  // namespace apikey::nginx
