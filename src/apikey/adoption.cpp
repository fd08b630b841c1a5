// How the processes of a node agree on the active snapshot (see adoption.hpp).
// Called by the workers' event loops and by the verifying thread, in several processes at once; read by keyloader.
// Never waits for another process: whoever is overtaken finds out at its next compare-and-swap and gives up.
#include "apikey/adoption.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>

namespace apikey {

namespace {

static_assert(std::is_trivially_copyable_v<Adopted> && std::is_standard_layout_v<Adopted>);
static_assert(std::is_trivially_copyable_v<Refusal> && std::is_standard_layout_v<Refusal>);
static_assert(std::is_standard_layout_v<Adoption> && std::is_trivially_destructible_v<Adoption>);
static_assert(offsetof(AdoptedFile, seal) == 48 && offsetof(AdoptedFile, generation) == 96 &&
              offsetof(AdoptedFile, configuration) == 136 && offsetof(AdoptedFile, flags) == 144);
static_assert(offsetof(Adopted, active) == 64 && offsetof(Adopted, veto) == 320 && offsetof(Adopted, lack) == 576);
static_assert(offsetof(Refusal, seal) == 40 && offsetof(Refusal, generation) == 88 &&
              offsetof(Refusal, sentence) == 192);

// A writer that is always faster than this reader is no worker: what is in shared memory is hostile.
constexpr int kMaxReads = 1000;

constexpr std::uint64_t attempt_of(std::uint64_t claim) noexcept { return claim >> 32U; }
constexpr std::uint32_t pid_of(std::uint64_t claim) noexcept { return static_cast<std::uint32_t>(claim); }
constexpr std::uint64_t make_claim(std::uint64_t attempt, std::uint32_t pid) noexcept { return attempt << 32U | pid; }

// Who holds a copy: its pid and fd in one word that is never 0.
constexpr std::uint64_t make_who(Adoption::Holder holder) noexcept {
  return std::uint64_t{holder.pid} << 32U | (static_cast<std::uint32_t>(holder.fd) + 1U);
}

// Writes the words in the name of `attempt`. RETURNS: false as soon as a later attempt has written one of them.
bool write_words(std::span<WideWord> words, std::span<const std::uint64_t> values, std::uint64_t attempt) noexcept {
  for (std::size_t i = 0; i < words.size(); ++i) {
    WidePair old;
    do {
      old = words[i].peek();
      if (old.high > attempt) {
        return false;
      }
    } while (!words[i].swap(old, {values[i], attempt}));
  }
  return true;
}

void read_words(std::span<const WideWord> words, std::span<std::uint64_t> values) noexcept {
  std::transform(words.begin(), words.end(), values.begin(), [](const WideWord& word) { return word.low(); });
}

// In nobody's name. REQUIRES: nobody else uses the words, and they are as many as `adopted` has.
void set_words(std::span<WideWord> words, const Adopted& adopted) noexcept {
  const auto* bytes = static_cast<const std::byte*>(static_cast<const void*>(&adopted));
  for (WideWord& word : words) {
    std::uint64_t value = 0;
    std::memcpy(&value, bytes, sizeof value);
    word.set({value, 0});
    bytes += sizeof value;
  }
}

// What outlives the nginx that adopted it.
Adopted known_from(const Adopted& before) noexcept {
  Adopted known;
  known.registry_id = before.registry_id;
  known.highest_generation = before.highest_generation;
  known.active = before.latest();
  known.active.change = 0;
  known.active.identity = {};
  return known;
}

std::string_view text_in(std::span<const char> zero_filled) noexcept {
  const auto* end = std::find(zero_filled.data(), zero_filled.data() + zero_filled.size(), '\0');
  return {zero_filled.data(), static_cast<std::size_t>(end - zero_filled.data())};
}

void put_text(std::span<char> out, std::string_view text) noexcept {
  std::fill(out.begin(), out.end(), '\0');
  std::copy_n(text.begin(), std::min(text.size(), out.size()), out.begin());
}

// The registry is the one that was followed before, or there was none.
bool is_followed(const Adopted& before, const RegistryId& registry_id) noexcept {
  return before.registry_id == registry_id || before.registry_id == RegistryId{};
}

// What the next change says of everything but its files.
Adopted after(const Adopted& before, const AdoptedFile& file, bool is_take_over, std::uint64_t wall_us) noexcept {
  Adopted next = before;
  if (!before.has_active()) {
    next.active = AdoptedFile{};  // known from before, and open nowhere
  }
  const bool may_fall = is_take_over || !is_followed(before, file.registry_id);
  next.highest_generation = may_fall ? file.generation : std::max(before.highest_generation, file.generation);
  next.registry_id = file.registry_id;
  next.since_us = wall_us;
  next.take_overs += is_take_over ? 1 : 0;
  return next;
}

}  // namespace

Lack::Lack(std::string_view name) noexcept { put_text(text, name); }
std::string_view Lack::name() const noexcept { return text_in(text); }
std::string_view Refusal::text() const noexcept { return text_in(sentence); }
void Refusal::set_text(std::string_view text) noexcept { put_text(sentence, text); }

InService in_service_of(const Adopted& adopted) noexcept {
  const AdoptedFile& latest = adopted.latest();
  InService known;
  known.registry_id = adopted.registry_id;
  known.generation = adopted.highest_generation;
  known.keys = latest.keys;
  known.has_counters = latest.has(kAdoptedHasCounters);
  known.added = latest.added;
  known.removed = latest.removed;
  return known;
}

Adopted Adoption::read() const noexcept {
  Adopted adopted;
  std::array<std::uint64_t, kAdoptedWords> values{};
  std::uint64_t seen = change();
  for (int tries = 0; tries < kMaxReads; ++tries) {
    read_words(adopted_[seen % 2], values);
    // This buffer is written again only after a further change has been published.
    const std::uint64_t now = change();
    if (now == seen) {
      std::memcpy(static_cast<void*>(&adopted), values.data(), sizeof adopted);
      break;
    }
    seen = now;
  }
  return adopted;
}

void Adoption::seed(const Adopted& before) noexcept { set_words(adopted_[0], known_from(before)); }

void Adoption::begin_again() noexcept {
  const Adopted before = read();
  if (change() != 0 && change() % 2 == 0) {
    // Buffer 0 is about to be written: until it is, buffer 1 says the same.
    set_words(adopted_[1], before);
    state_.set({change() + 1, 0});
  }
  set_words(adopted_[0], known_from(before));
  state_.set({0, 0});
  set_words(adopted_[1], {});
  heartbeat_ms_.store(0);
  std::for_each(notices_.begin(), notices_.end(), [](auto& notice) { notice.store(0); });
  std::for_each(refused_.begin(), refused_.end(), [](WideWord& word) { word.set({0, 0}); });
  std::for_each(holders_.begin(), holders_.end(), [](WideWord& word) { word.set({0, 0}); });
}

bool Adoption::last_refusal(Refusal& refusal) const noexcept {
  std::array<std::uint64_t, kRefusedWords> values{};
  const std::uint64_t attempt = refused_.front().high();
  read_words(refused_, values);
  // Words of one attempt make a refusal; a mixture is one half-written by a process that died.
  const bool is_whole =
      std::all_of(refused_.begin(), refused_.end(), [&](const WideWord& word) { return word.high() == attempt; });
  if (attempt == 0 || !is_whole) {
    return false;
  }
  Refusal found;
  std::memcpy(static_cast<void*>(&found), values.data(), sizeof found);
  if (found.result >= kAdoptionResultCount) {
    return false;
  }
  refusal = found;
  return true;
}

bool Adoption::is_refused(const FileIdentity& identity, std::uint64_t configuration) const noexcept {
  Refusal refusal;
  return last_refusal(refusal) && refusal.identity == identity && refusal.configuration == configuration &&
         is_final(static_cast<AdoptionResult>(refusal.result));
}

bool Adoption::is_settled(const FileIdentity& identity, std::uint64_t configuration) const noexcept {
  if (is_refused(identity, configuration)) {
    return true;
  }
  // Of a veto another configuration may know what that one lacked.
  const Adopted adopted = read();
  const AdoptedFile& latest = adopted.latest();
  return latest.change != 0 && latest.identity == identity &&
         (!adopted.has_veto() || latest.configuration == configuration);
}

std::uint64_t Adoption::take_claim(std::uint32_t pid, std::uint64_t now_ms) noexcept {
  const WidePair old = state_.peek();
  if (pid_of(old.high) != 0 && now_ms < heartbeat_ms_.load(std::memory_order_acquire) + kClaimTimeoutMs) {
    return 0;
  }
  const std::uint64_t attempt = (attempt_of(old.high) + 1) & UINT32_MAX;
  if (attempt == 0) {
    return 0;  // 2^32 attempts are used up: later ones could not be told from earlier ones
  }
  // The heartbeat first: a claim is never seen with the heartbeat of the one before.
  heartbeat_ms_.store(now_ms, std::memory_order_release);
  return state_.swap(old, {old.low, make_claim(attempt, pid)}) ? attempt : 0;
}

std::uint64_t Adoption::claim(const FileIdentity& identity, std::uint64_t configuration, std::uint32_t pid,
                              std::uint64_t now_ms) noexcept {
  if (is_settled(identity, configuration)) {
    return 0;
  }
  const std::uint64_t attempt = take_claim(pid, now_ms);
  // Somebody may have come to a verdict between the first look and the claim.
  if (attempt != 0 && is_settled(identity, configuration)) {
    abandon(attempt);
    return 0;
  }
  return attempt;
}

std::uint64_t Adoption::claim_again(std::uint32_t pid, std::uint64_t now_ms) noexcept {
  return take_claim(pid, now_ms);
}

bool Adoption::holds_claim(std::uint64_t attempt, WidePair& state) const noexcept {
  state = state_.peek();
  return attempt != 0 && attempt_of(state.high) == attempt && pid_of(state.high) != 0;
}

bool Adoption::heartbeat(std::uint64_t attempt, std::uint64_t now_ms) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  heartbeat_ms_.store(now_ms, std::memory_order_release);
  return true;
}

bool Adoption::is_verifying(std::uint64_t now_ms) const noexcept {
  return pid_of(state_.high()) != 0 && now_ms < heartbeat_ms_.load(std::memory_order_acquire) + kClaimTimeoutMs;
}

bool Adoption::adopt(std::uint64_t attempt, const AdoptedFile& file, bool is_take_over, std::uint64_t wall_us,
                     Holder holder) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  Adopted next = after(read(), file, is_take_over, wall_us);
  next.change = state.low + 1;
  next.active = file;
  next.active.change = next.change;
  next.veto = AdoptedFile{};
  next.lack = Lack{};
  return publish(attempt, state, next, holder);
}

bool Adoption::veto(std::uint64_t attempt, const AdoptedFile& file, const Lack& lack, std::uint64_t wall_us,
                    Holder holder) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  Adopted next = after(read(), file, false, wall_us);
  next.change = state.low + 1;
  next.veto = file;
  next.veto.change = next.change;
  next.lack = lack;
  return publish(attempt, state, next, holder);
}

bool Adoption::publish(std::uint64_t attempt, const WidePair& state, const Adopted& next, Holder holder) noexcept {
  std::array<std::uint64_t, kAdoptedWords> values{};
  std::memcpy(values.data(), &next, sizeof next);
  if (!write_words(adopted_[next.change % 2], values, attempt)) {
    return false;
  }
  // A holder stands in the table before anybody can look for one.
  hold(holder, next.change);
  if (!state_.swap(state, {next.change, make_claim(attempt, 0)})) {
    drop(holder.pid, next.change);
    return false;
  }
  return true;
}

bool Adoption::refuse(std::uint64_t attempt, const Refusal& refusal) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  std::array<std::uint64_t, kRefusedWords> values{};
  std::memcpy(values.data(), &refusal, sizeof refusal);
  return write_words(refused_, values, attempt) && release(attempt);
}

bool Adoption::release(std::uint64_t attempt) noexcept {
  WidePair state;
  return holds_claim(attempt, state) && state_.swap(state, {state.low, make_claim(attempt, 0)});
}

void Adoption::abandon(std::uint64_t attempt) noexcept { static_cast<void>(release(attempt)); }

bool Adoption::hold(Holder holder, std::uint64_t change) noexcept {
  return std::any_of(holders_.begin(), holders_.end(), [&](WideWord& slot) {
    return slot.low() == 0 && slot.swap({0, 0}, {make_who(holder), change});
  });
}

void Adoption::drop(std::uint32_t pid, std::uint64_t change) noexcept {
  for (WideWord& slot : holders_) {
    const WidePair held = slot.peek();
    if (held.low >> 32U == pid && held.low != 0 && held.high == change) {
      slot.swap(held, {0, 0});
    }
  }
}

void Adoption::drop_all(std::uint32_t pid) noexcept {
  for (WideWord& slot : holders_) {
    const WidePair held = slot.peek();
    if (held.low >> 32U == pid && held.low != 0) {
      slot.swap(held, {0, 0});
    }
  }
}

bool Adoption::holder(std::size_t i, std::uint64_t change, Holder& holder) const noexcept {
  for (const WideWord& slot : holders_) {
    const WidePair held = slot.peek();
    if (held.low == 0 || held.high != change || slot.low() != held.low) {
      continue;
    }
    if (i == 0) {
      holder = {static_cast<std::uint32_t>(held.low >> 32U),
                static_cast<int>(static_cast<std::uint32_t>(held.low) - 1U)};
      return true;
    }
    --i;
  }
  return false;
}

std::uint64_t Adoption::oldest_held(bool (*is_alive)(std::uint32_t pid) noexcept) const noexcept {
  std::uint64_t oldest = 0;
  for (const WideWord& slot : holders_) {
    const WidePair held = slot.peek();
    if (held.low == 0 || held.high == 0 || (oldest != 0 && held.high >= oldest)) {
      continue;
    }
    if (is_alive(static_cast<std::uint32_t>(held.low >> 32U))) {
      oldest = held.high;
    }
  }
  return oldest;
}

bool Adoption::is_first_notice(Notice notice, std::uint64_t number) noexcept {
  return notices_[static_cast<std::size_t>(notice)].exchange(number) != number;
}

}  // namespace apikey
