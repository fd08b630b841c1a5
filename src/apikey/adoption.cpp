// How the workers of a node agree on the snapshot in service (see adoption.hpp).
// Called by the workers' event loops and by the verifying thread, in several processes at once.
// Never waits for another process: whoever is overtaken finds out at its next compare-and-swap and gives up.
#include "apikey/adoption.hpp"

#include <algorithm>
#include <cstring>
#include <span>
#include <type_traits>

namespace apikey {

namespace {

static_assert(std::is_trivially_copyable_v<Adopted> && sizeof(Adopted) % sizeof(std::uint64_t) == 0);
static_assert(std::is_trivially_copyable_v<FileIdentity> && sizeof(FileIdentity) == 5 * sizeof(std::uint64_t));
static_assert(std::is_standard_layout_v<Adoption> && std::is_trivially_destructible_v<Adoption>);

constexpr std::uint64_t attempt_of(std::uint64_t claim) noexcept { return claim >> 32U; }
constexpr std::uint32_t pid_of(std::uint64_t claim) noexcept { return static_cast<std::uint32_t>(claim); }
constexpr std::uint64_t make_claim(std::uint64_t attempt, std::uint32_t pid) noexcept { return attempt << 32U | pid; }

// Who holds a copy: its pid and fd in one word that is never 0.
constexpr std::uint64_t make_who(std::uint32_t pid, int fd) noexcept {
  return std::uint64_t{pid} << 32U | (static_cast<std::uint32_t>(fd) + 1U);
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

}  // namespace

Adopted Adoption::read() const noexcept {
  Adopted adopted;
  std::array<std::uint64_t, kAdoptedWords> values{};
  std::uint64_t seen = change();
  while (true) {
    const auto& words = adopted_[seen % 2];
    std::transform(words.begin(), words.end(), values.begin(), [](const WideWord& word) { return word.low(); });
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

void Adoption::seed(const Adopted& before) noexcept {
  Adopted known;
  known.seal = before.seal;
  known.registry_id = before.registry_id;
  known.highest_generation = before.highest_generation;
  std::array<std::uint64_t, kAdoptedWords> values{};
  std::memcpy(values.data(), &known, sizeof known);
  static_cast<void>(write_words(adopted_[0], values, 0));
}

bool Adoption::last_refusal(FileIdentity& identity, AdoptionResult& result) const noexcept {
  std::array<std::uint64_t, kRefusedWords> values{};
  const std::uint64_t attempt = refused_[0].high();
  for (std::size_t i = 0; i < kRefusedWords; ++i) {
    values[i] = refused_[i].low();
  }
  // Words of one attempt make a refusal; a mixture is one half-written by a process that died.
  for (const WideWord& word : refused_) {
    if (word.high() != attempt) {
      return false;
    }
  }
  if (attempt == 0) {
    return false;
  }
  std::memcpy(static_cast<void*>(&identity), values.data(), sizeof identity);
  result = static_cast<AdoptionResult>(values[kRefusedWords - 1]);
  return true;
}

bool Adoption::is_settled(const FileIdentity& identity) const noexcept {
  FileIdentity refused;
  AdoptionResult result{};
  if (last_refusal(refused, result) && refused == identity) {
    return true;
  }
  const Adopted adopted = read();
  return adopted.change != 0 && adopted.identity == identity;
}

std::uint64_t Adoption::claim(const FileIdentity& identity, std::uint32_t pid, std::uint64_t now_ms) noexcept {
  if (is_settled(identity)) {
    return 0;
  }
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
  if (!state_.swap(old, {old.low, make_claim(attempt, pid)})) {
    return 0;
  }
  // Somebody may have come to a verdict between the first look and the claim.
  if (is_settled(identity)) {
    abandon(attempt);
    return 0;
  }
  return attempt;
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

bool Adoption::publish(std::uint64_t attempt, const Adopted& adopted, std::uint32_t pid, int fd) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  Adopted next = adopted;
  next.change = state.low + 1;
  next.highest_generation = std::max({read().highest_generation, adopted.highest_generation, adopted.generation});

  std::array<std::uint64_t, kAdoptedWords> values{};
  std::memcpy(values.data(), &next, sizeof next);
  if (!write_words(adopted_[next.change % 2], values, attempt)) {
    return false;
  }
  // A holder stands in the table before anybody can look for one.
  hold(pid, fd, next.change);
  if (!state_.swap(state, {next.change, make_claim(attempt, 0)})) {
    drop(pid, next.change);
    return false;
  }
  return true;
}

bool Adoption::refuse(std::uint64_t attempt, const FileIdentity& identity, AdoptionResult result) noexcept {
  WidePair state;
  if (!holds_claim(attempt, state)) {
    return false;
  }
  std::array<std::uint64_t, kRefusedWords> values{};
  std::memcpy(values.data(), &identity, sizeof identity);
  values[kRefusedWords - 1] = static_cast<std::uint64_t>(result);
  return write_words(refused_, values, attempt) && release(attempt);
}

bool Adoption::release(std::uint64_t attempt) noexcept {
  WidePair state;
  return holds_claim(attempt, state) && state_.swap(state, {state.low, make_claim(attempt, 0)});
}

void Adoption::abandon(std::uint64_t attempt) noexcept { static_cast<void>(release(attempt)); }

bool Adoption::hold(std::uint32_t pid, int fd, std::uint64_t change) noexcept {
  return std::any_of(holders_.begin(), holders_.end(), [&](WideWord& slot) {
    return slot.low() == 0 && slot.swap({0, 0}, {make_who(pid, fd), change});
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

}  // namespace apikey
