// Reading and writing rows of node memory. What is read may be written by others at the same time, and by anybody who
// runs as the workers' user: it is copied first, word by word, then judged.
#include "apikey/node_rows.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

namespace apikey {
namespace {

static_assert(sizeof(StoreRow) % 64 == 0 && std::is_trivially_copyable_v<Adopted>);

constexpr std::uint64_t kCopies = 16;  // attempts to copy a row between two changes of it

// Reads words that others may be writing. REQUIRES: both 8-byte aligned, size a multiple of 8.
void copy_words(const std::byte* from, std::byte* to, std::size_t size) noexcept {
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t word =
        __atomic_load_n(static_cast<const std::uint64_t*>(static_cast<const void*>(from + at)), __ATOMIC_RELAXED);
    std::memcpy(to + at, &word, sizeof word);
  }
}

template <std::size_t N>
void put_text(std::array<char, N>& out, std::string_view text) noexcept {
  out.fill('\0');
  std::copy_n(text.begin(), std::min(text.size(), out.size()), out.begin());
}

// As many words as fit; a last one `+` says that there are more.
void put_words(std::array<char, kStoreWordsSize>& out, std::string_view words) noexcept {
  put_text(out, words);
  if (words.size() > out.size()) {
    constexpr std::string_view more = " +";
    const std::size_t end = words.rfind(' ', out.size() - more.size());
    put_text(out, words.substr(0, end == std::string_view::npos ? 0 : end));
    const std::size_t begin = node_text(out).size();
    std::copy(more.begin() + (begin == 0 ? 1 : 0), more.end(), out.begin() + static_cast<std::ptrdiff_t>(begin));
  }
}

}  // namespace

void name_store_row(StoreRow& row, std::string_view path, std::string_view name) noexcept {
  put_text(row.path, path);
  put_text(row.name, name);
}

void set_abilities(StoreRow& row, std::string_view methods, std::string_view features) noexcept {
  put_words(row.methods, methods);
  put_words(row.features, features);
}

void set_newest_format(StoreRow& row, std::uint32_t format) noexcept { row.newest_format.store(format); }

void set_min_keep(StoreRow& row, std::uint64_t percent) noexcept { row.min_keep.store(percent + 1); }

const Adoption& StoreReport::adoption() const noexcept {
  return *static_cast<const Adoption*>(static_cast<const void*>(adoption_copy.data()));
}

std::uint64_t begin_worker_row(WorkerRow& row, const WorkerStart& start) noexcept {
  WidePair before = row.owner.peek();
  while (!row.owner.swap(before, {start.pid, before.high + 1})) {
    before = row.owner.peek();
  }
  for (WideWord& ack : row.acks) {
    ack.set({});
  }
  row.configuration.store(start.configuration);
  row.started_us.store(start.started_us);
  row.flags.store(start.flags);
  return before.high + 1;
}

void acknowledge(WorkerRow& row, std::size_t store, const Ack& ack) noexcept {
  row.acks[store].set({ack.generation, ack.change << 8U | static_cast<std::uint64_t>(ack.state)});
}

bool read_store_row(const std::byte* row, std::size_t row_size, StoreReport& out) noexcept {
  alignas(StoreRow) std::array<std::byte, sizeof(StoreRow)> copy{};
  const std::size_t size = std::min(row_size, copy.size()) / sizeof(std::uint64_t) * sizeof(std::uint64_t);
  const auto& found = *static_cast<const StoreRow*>(static_cast<const void*>(copy.data()));
  const auto& live = *static_cast<const StoreRow*>(static_cast<const void*>(row));
  const bool has_adoption = size == copy.size();
  for (std::uint64_t i = 0; i < kCopies; ++i) {
    copy_words(row, copy.data(), size);
    // What change n says stands still until n + 1 is published.
    if (has_adoption && live.adoption.change() != found.adoption.change()) {
      continue;
    }
    out.key = found.key.load();
    out.last_configuration = found.last_configuration.load();
    out.active_configuration = found.active_configuration.load();
    out.path_text = found.path;
    out.name_text = found.name;
    out.methods_text = found.methods;
    out.features_text = found.features;
    const std::uint64_t min_keep = found.min_keep.load();
    out.min_keep = min_keep == 0 ? std::nullopt : std::optional(min_keep - 1);
    constexpr std::uint64_t most = std::numeric_limits<std::uint32_t>::max();
    out.newest_format = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(found.newest_format.load(), 1, most));
    out.adoption_copy = {};
    std::memcpy(out.adoption_copy.data(), copy.data() + offsetof(StoreRow, adoption), sizeof(Adoption));
    out.adopted = out.adoption().read();
    return true;
  }
  return false;
}

void read_worker_row(const std::byte* row, std::size_t row_size, WorkerReport& out) noexcept {
  alignas(WorkerRow) std::array<std::byte, sizeof(WorkerRow)> copy{};
  copy_words(row, copy.data(), std::min(row_size, copy.size()) / sizeof(std::uint64_t) * sizeof(std::uint64_t));
  const auto& found = *static_cast<const WorkerRow*>(static_cast<const void*>(copy.data()));
  out.pid = found.owner.low();
  out.ticket = found.owner.high();
  out.configuration = found.configuration.load();
  out.started_us = found.started_us.load();
  out.flags = found.flags.load();
  for (std::size_t i = 0; i < out.acks.size(); ++i) {
    const WidePair word = found.acks[i].peek();
    const auto state = static_cast<std::uint8_t>(word.high);
    out.acks[i] = {
        word.low, word.high >> 8U,
        state <= static_cast<std::uint8_t>(AckState::unchecked) ? static_cast<AckState>(state) : AckState::none};
  }
}

}  // namespace apikey
