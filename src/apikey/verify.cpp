// The verification of a whole snapshot, in this order: seal, SHA-256, page structure with meta and rows, then keys,
// references and index. Called in a thread of one worker per node, and by keyloader before and after it writes.
// Must not trust a byte before it was checked, must not allocate, must end when it is told to.
#include "apikey/verify.hpp"

#define OPENSSL_SUPPRESS_DEPRECATED  // the low-level SHA-256 neither allocates nor fetches
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>

#include "apikey/binding.hpp"
#include "apikey/digest.hpp"
#include "apikey/features.hpp"
#include "apikey/index.hpp"
#include "apikey/pages.hpp"
#include "apikey/record.hpp"
#include "apikey/rows.hpp"
#include "apikey/scope_set.hpp"

namespace apikey {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::size_t kStep = std::size_t{1} << 20;
constexpr unsigned kPagesPerQuestion = 256;

bool may_carry_on(const VerifyControl& control) noexcept {
  return control.carry_on == nullptr || control.carry_on(control.context);
}

std::string_view as_text(Bytes bytes) noexcept {
  return {static_cast<const char*>(static_cast<const void*>(bytes.data())), bytes.size()};
}

Status damaged(const char* text, std::uint64_t a = 0, std::uint64_t b = 0) noexcept {
  return {StatusCode::damaged, text, a, b};
}

std::uint32_t big_endian(Bytes four) noexcept {
  std::uint32_t number = 0;
  for (const std::byte b : four) number = number << 8 | std::to_integer<std::uint32_t>(b);
  return number;
}

// Goes through the pages twice: what the second round checks refers to what the first has counted.
class Content {
 public:
  Content(Bytes file, std::span<std::uint64_t> scratch, const VerifyControl& control) noexcept
      : file_(file), scratch_(scratch), control_(control) {}

  // `is_sealed`: there must be an index, and it must agree.
  Status check(bool is_sealed) noexcept;
  [[nodiscard]] const Meta& meta() const noexcept { return meta_; }

 private:
  Status walk() noexcept;
  Status check_counts(bool is_sealed) noexcept;

  Status take(std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept;
  Status take_row(Table table, Bytes key, Bytes value) noexcept;
  Status take_index(Bytes key, std::uint64_t offset, Bytes value) noexcept;

  Status recheck(std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept;
  Status check_key(Bytes key, std::uint64_t offset, Bytes value) noexcept;
  Status check_references(const Record& record) noexcept;
  Status check_lists(const Record& record) noexcept;
  Status check_row(Table table, Bytes key, Bytes value) noexcept;
  Status check_limit_names(const LimitList& limits) noexcept;
  // A file that requires what this build does not know may hold flags, bindings and limits that it does not know
  // either. It can only veto, so of a key no more is checked than a veto needs: where it is, and whether it is good.
  [[nodiscard]] bool is_for_veto_only() const noexcept {
    const auto features = std::span(meta_.features).first(meta_.feature_count);
    return !std::all_of(features.begin(), features.end(), is_known_feature);
  }
  Status check_life(const Digest& digest, std::uint64_t offset, Bytes value) noexcept;
  Status check_place(const Digest& digest, std::uint64_t offset, Bytes value) noexcept;
  [[nodiscard]] bool is_string(std::uint32_t number) const noexcept {
    return number >= 1 && number <= rows(Table::strings);
  }
  [[nodiscard]] std::uint32_t rows(Table table) const noexcept { return rows_[static_cast<std::size_t>(table) - 1]; }

  static bool on_entry(void* context, std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept;
  static bool on_page(void* context) noexcept;

  Bytes file_;
  std::span<std::uint64_t> scratch_;
  const VerifyControl& control_;
  LmdbHeader header_;
  Meta meta_;
  RowCounts rows_{};
  std::uint64_t keys_ = 0;
  std::uint64_t index_at_ = 0;
  std::uint64_t index_size_ = 0;
  Index index_;
  bool is_second_round_ = false;
  bool has_index_ = false;
  unsigned pages_ = 0;
  Status failure_;  // why a callback stopped the walk
};

bool Content::on_entry(void* context, std::string_view database, Bytes key, std::uint64_t offset,
                       Bytes value) noexcept {
  auto& self = *static_cast<Content*>(context);
  self.failure_ =
      self.is_second_round_ ? self.recheck(database, key, offset, value) : self.take(database, key, offset, value);
  return self.failure_.ok();
}

bool Content::on_page(void* context) noexcept {
  auto& self = *static_cast<Content*>(context);
  return ++self.pages_ % kPagesPerQuestion != 0 || may_carry_on(self.control_);
}

Status Content::walk() noexcept {
  std::fill(scratch_.begin(), scratch_.end(), 0);
  const Status status = walk_pages(file_, header_, scratch_, {this, on_entry, on_page});
  return failure_.ok() ? status : failure_;
}

Status Content::check(bool is_sealed) noexcept {
  Status status = read_lmdb_header(file_, header_);
  if (!status.ok()) return status;
  if ((header_.last_page + 1) * header_.page_size != file_.size()) {
    return damaged("the last page is page {0}, which does not end at byte {1}, where it should", header_.last_page,
                   file_.size());
  }
  status = walk();
  if (status.ok()) status = check_counts(is_sealed);
  if (!status.ok()) return status;
  is_second_round_ = true;
  return walk();
}

Status Content::check_counts(bool is_sealed) noexcept {
  Status status = check_meta(meta_);
  if (!status.ok()) return status;
  if (meta_.has_base) {
    return {StatusCode::unsupported,
            "the snapshot is a head that needs a base; this build reads complete snapshots only"};
  }
  if (meta_.keys != keys_) return damaged("meta says {0} keys, there are {1}", meta_.keys, keys_);
  if (!is_sealed) return {};
  if (index_size_ == 0) return damaged("there is no index; `keyloader snapshot seal` makes one");
  status = Index::open(file_, index_at_, index_size_, index_);
  if (!status.ok()) return status;
  if (index_.bucket_count() < header_.page_size / kBucketSize) {  // else it need not stand in pages of its own
    return damaged("an index of {0} buckets is too small; {1} is the least", index_.bucket_count(),
                   header_.page_size / kBucketSize);
  }
  for (std::size_t i = 0; i < kTableCount; ++i) {
    if (index_.row_counts()[i] != rows_[i]) {
      return damaged("the index knows {0} rows of a table that has {1}", index_.row_counts()[i], rows_[i]);
    }
  }
  std::uint64_t entries = 0;
  if (!index_.count_entries(entries)) return damaged("a bucket of the index does not check");
  if (entries != keys_) return damaged("the index has {0} entries for {1} keys", entries, keys_);
  has_index_ = true;
  return {};
}

Status Content::take(std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept {
  Table table{};
  if (database == "meta") return set_meta(meta_, as_text(key), as_text(value));
  if (database == "index") return take_index(key, offset, value);
  if (find_table(database, table)) return take_row(table, key, value);
  if (database == "keys") ++keys_;
  return {};
}

Status Content::take_index(Bytes key, std::uint64_t offset, Bytes value) noexcept {
  if (as_text(key) != "1") return damaged("database `index` holds something else than the index");
  index_at_ = offset;
  index_size_ = value.size();
  return {};
}

Status Content::take_row(Table table, Bytes key, Bytes value) noexcept {
  std::uint32_t& count = rows_[static_cast<std::size_t>(table) - 1];
  const std::uint32_t expected = table == Table::scopes ? count : count + 1;
  if (key.size() != 4 || big_endian(key) != expected) {
    return damaged("the rows of table {0} are not numbered without a gap: {1} is not there",
                   static_cast<unsigned>(table), expected);
  }
  ++count;
  if (count == 0xffffffff) return damaged("table {0} has too many rows", static_cast<unsigned>(table));
  Bytes payload;
  bool is_sound = decode_row(table, expected, value, payload) && value.size() == kRowHeaderSize + payload.size();
  ScopeSet set;
  PlanRow plan;
  OwnerRow owner;
  OwnerLife owner_life;
  if (is_sound && is_for_veto_only()) {
    is_sound = table != Table::owners || decode_owner_life(payload, owner_life);
  } else {
    if (is_sound && table == Table::scopes) is_sound = ScopeSet::decode(payload, set);
    if (is_sound && table == Table::plans) is_sound = decode_plan(payload, plan);
    if (is_sound && table == Table::owners) is_sound = decode_owner(payload, owner);
  }
  if (is_sound) return {};
  return damaged("row {1} of table {0} does not check (1 strings, 2 scopes, 3 plans, 4 owners)",
                 static_cast<unsigned>(table), expected);
}

Status Content::recheck(std::string_view database, Bytes key, std::uint64_t offset, Bytes value) noexcept {
  Table table{};
  if (database == "keys") return check_key(key, offset, value);
  if (find_table(database, table)) return check_row(table, key, value);
  return {};
}

Status Content::check_key(Bytes key, std::uint64_t offset, Bytes value) noexcept {
  Digest digest;
  Record record;
  if (key.size() != digest.bytes.size()) {
    return damaged("a key of database `keys` has {0} bytes instead of 32 (record at byte {1})", key.size(), offset);
  }
  std::copy_n(static_cast<const std::uint8_t*>(static_cast<const void*>(key.data())), key.size(), digest.bytes.begin());
  if (is_for_veto_only()) return check_life(digest, offset, value);
  if (value.size() != kRecordSize || !decode_record(digest, value, record)) {
    return damaged("the record at byte {0} ({1} bytes) does not check", offset, value.size());
  }
  if (value.data() != key.data() + key.size()) {
    return damaged("the record at byte {0} does not stand behind its digest", offset);
  }
  Status status = check_references(record);
  if (!status.ok() || !has_index_) return status;
  status = check_place(digest, offset, value);
  return status.ok() ? check_lists(record) : status;
}

Status Content::check_place(const Digest& digest, std::uint64_t offset, Bytes value) noexcept {
  Bytes found;
  if (index_.find(digest, found) == Index::Find::found && found.data() == value.data()) return {};
  return damaged("the index does not lead to the record at byte {0}", offset);
}

Status Content::check_life(const Digest& digest, std::uint64_t offset, Bytes value) noexcept {
  Life life;
  if (!decode_life(digest, value, life)) {
    return damaged("the record at byte {0} ({1} bytes) does not check", offset, value.size());
  }
  if (life.owner < 1 || life.owner > rows(Table::owners)) {
    return damaged("a record refers to owner {0}, which is not there", life.owner);
  }
  return has_index_ ? check_place(digest, offset, value) : Status{};
}

Status Content::check_references(const Record& record) noexcept {
  const auto string_or_none = [this](std::uint32_t number) { return number == 0 || is_string(number); };
  const bool is_sound = is_string(record.env) && record.owner >= 1 && record.owner <= rows(Table::owners) &&
                        record.plan <= rows(Table::plans) &&
                        (record.scopes == 0 || record.scopes < rows(Table::scopes)) && string_or_none(record.name) &&
                        string_or_none(record.meta) && string_or_none(record.bindings) && string_or_none(record.limits);
  if (is_sound) return {};
  return damaged("a record of owner {0}, plan {1} refers to a row that is not there", record.owner, record.plan);
}

// What a record refers to in `strings` and is no text. Needs the index to get there.
Status Content::check_lists(const Record& record) noexcept {
  Bytes payload;
  if (record.bindings != 0) {
    if (!index_.row(Table::strings, record.bindings, payload) || payload.size() > kMaxBindingBytes) {
      return damaged("string {0} is no list of bindings", record.bindings);
    }
    Binding binding;
    std::size_t walked = 0;
    while (next_binding(payload, binding)) ++walked;
    if (walked == 0 || !payload.empty()) return damaged("string {0} is no list of bindings", record.bindings);
  }
  if (record.limits == 0) return {};
  LimitList limits;
  if (!index_.row(Table::strings, record.limits, payload) || !decode_limits(payload, limits) || limits.size() == 0) {
    return damaged("string {0} is no list of limits", record.limits);
  }
  return check_limit_names(limits);
}

Status Content::check_row(Table table, Bytes key, Bytes value) noexcept {
  const std::uint32_t number = big_endian(key);
  const Bytes payload = value.subspan(kRowHeaderSize);
  Bytes found;
  if (has_index_ && (!index_.row(table, number, found) || found.data() != payload.data())) {
    return damaged("the index does not lead to row {1} of table {0}", static_cast<unsigned>(table), number);
  }
  if (is_for_veto_only()) return {};
  PlanRow plan;
  if (table == Table::plans && decode_plan(payload, plan)) {
    return is_string(plan.name) ? check_limit_names(plan.limits)
                                : damaged("plan {0} has the name {1}, which is no string", number, plan.name);
  }
  OwnerRow owner;
  if (table == Table::owners && decode_owner(payload, owner)) {
    return is_string(owner.name) && (owner.meta == 0 || is_string(owner.meta))
               ? check_limit_names(owner.limits)
               : damaged("owner {0} refers to a string that is not there", number);
  }
  return {};
}

Status Content::check_limit_names(const LimitList& limits) noexcept {
  for (std::size_t i = 0; i < limits.size(); ++i) {
    if (!is_string(limits[i].name)) return damaged("a limit has the name {0}, which is no string", limits[i].name);
  }
  return {};
}

Status check_hash(Bytes sealed, const SealHash& expected, const VerifyControl& control) noexcept {
  SHA256_CTX state;
  SHA256_Init(&state);
  for (std::size_t at = 0; at < sealed.size(); at += kStep) {
    if (!may_carry_on(control)) return {StatusCode::failed, "stopped after {0} of {1} bytes", at, sealed.size()};
    const Bytes step = sealed.subspan(at, std::min(kStep, sealed.size() - at));
    SHA256_Update(&state, step.data(), step.size());
  }
  SealHash found;
  SHA256_Final(found.data(), &state);
  if (CRYPTO_memcmp(found.data(), expected.data(), found.size()) == 0) return {};
  return damaged("the {0} bytes before the seal are not those that were sealed (SHA-256 differs)", sealed.size());
}

__extension__ using Wide = __int128;

constexpr const char* kOlderAdded =
    "its registry has added {0} keys so far, the registry of the active snapshot {1}: it comes from a copy of the "
    "registry that has gone its own way; if it is to count, run `keyloader publish --take-over --reason …`, on a node "
    "`keyloader snapshot install --take-over`";
constexpr const char* kOlderRemoved =
    "its registry has removed {0} keys so far, the registry of the active snapshot {1}: it comes from a copy of the "
    "registry that has gone its own way; if it is to count, run `keyloader publish --take-over --reason …`, on a node "
    "`keyloader snapshot install --take-over`";

// How many keys `next` has if every difference was intended. An active snapshot without counters is of before they
// were counted: all that its registry has removed since then may still be in it.
Wide keys_expected(const InService& current, const Meta& next) noexcept {
  Wide keys = current.keys;
  if (next.has_removed) keys -= next.removed;
  if (next.has_removed && current.has_counters) keys += Wide{next.added} - current.added + current.removed;
  return keys;
}

}  // namespace

std::size_t verify_scratch_words(std::size_t file_length) noexcept { return file_length / 4096 / 64 + 1; }

Status verify_snapshot(std::span<const std::byte> file, std::span<std::uint64_t> scratch, const VerifyControl& control,
                       Verified& verified) noexcept {
  verified = Verified{};
  Seal seal;
  Status status = decode_seal(file, seal);
  if (!status.ok()) return status;
  const Bytes sealed = file.first(file.size() - seal.page_size);
  status = check_hash(sealed, seal.sha256, control);
  if (!status.ok()) return status;

  Content content(sealed, scratch, control);
  status = content.check(true);
  if (!status.ok()) return status;
  LmdbHeader header;
  status = read_lmdb_header(sealed, header);
  if (!status.ok()) return status;
  if (header.page_size != seal.page_size) {
    return damaged("the seal is for pages of {0} bytes, the file has pages of {1}", seal.page_size, header.page_size);
  }
  if (seal.format != content.meta().format) {
    return damaged("the seal says format {0}, meta says {1}", seal.format, content.meta().format);
  }
  if (seal.generation != content.meta().generation || seal.base != content.meta().base) {
    return damaged("the seal is for generation {0}, meta says {1} (or another base)", seal.generation,
                   content.meta().generation);
  }
  verified = {seal, content.meta()};
  return {};
}

Status verify_unsealed(std::span<const std::byte> file, std::span<std::uint64_t> scratch, const VerifyControl& control,
                       Meta& meta) noexcept {
  Content content(file, scratch, control);
  const Status status = content.check(false);
  meta = content.meta();
  return status;
}

InService in_service_of(const Meta& meta) noexcept {
  return {meta.registry_id, meta.generation, meta.keys, meta.has_added, meta.added, meta.removed};
}

Status may_follow(const InService& current, const Meta& next, unsigned min_keep_percent) noexcept {
  if (current.generation == 0) return {};
  if (next.registry_id != current.registry_id) {
    return {StatusCode::refused,
            "it belongs to another registry than the active snapshot (generation {0}, active is {1}); if it is to "
            "replace that one, run `keyloader publish --take-over --reason …`, on a node `keyloader snapshot install "
            "--take-over`",
            next.generation, current.generation};
  }
  if (next.generation <= current.generation) {
    return {StatusCode::refused,
            "generation {0} is not higher than generation {1}, which was active; if this is intended, run "
            "`keyloader publish --take-over --reason …`, on a node `keyloader snapshot install --take-over`",
            next.generation, current.generation};
  }
  const bool can_compare = current.has_counters && next.has_added;
  if (can_compare && next.added < current.added) {
    return {StatusCode::refused, kOlderAdded, next.added, current.added};
  }
  if (can_compare && next.removed < current.removed) {
    return {StatusCode::refused, kOlderRemoved, next.removed, current.removed};
  }
  const bool has_shrunk = Wide{next.keys} * 100 < keys_expected(current, next) * min_keep_percent;
  if (has_shrunk && !next.allow_shrink) {
    return {StatusCode::refused,
            "{0} keys would replace {1} active ones; if this is intended, run `keyloader publish --allow-shrink`",
            next.keys, current.keys};
  }
  return {};
}

}  // namespace apikey
