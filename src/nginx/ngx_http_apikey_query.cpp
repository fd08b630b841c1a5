// Cuts or redacts the pairs of one name in a query, wherever the query stands.
// Called in the preaccess phase. The old text is left to the caller, who overwrites what must not stay.
#include "ngx_http_apikey_query.hpp"

#include <array>

#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/key_form.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kRedactedSize = kMaxPrefixLength + kMaxEnvLength + 6;

std::size_t count_pairs(std::string_view query, std::string_view name) noexcept {
  std::size_t count = 0;
  for (NamedValue found; next_in_query(query, name, found);) {
    ++count;
  }
  return count;
}

// The redacted form of a value as it stands in a query.
std::string_view redact_value(std::string_view value, std::span<char, kRedactedSize> out) noexcept {
  std::array<char, kMaxKeyLength> buffer;
  std::string_view decoded;
  if (!percent_decode(value, buffer, decoded)) {
    decoded = {};
  }
  const std::string_view redacted = redact_key(decoded, out);
  wipe(std::span<char>(buffer));
  return redacted;
}

// A place in new memory to which pieces of the old text are copied; it never writes more than it was made for.
struct Copy {
  u_char* at;
  void add(std::string_view piece) noexcept { at = ngx_cpymem(at, piece.data(), piece.size()); }
};

std::string_view between(const char* begin, const char* end) noexcept {
  return {begin, static_cast<std::size_t>(end - begin)};
}

}  // namespace

std::string_view query_of_uri(std::string_view uri) noexcept {
  const std::size_t mark = uri.find('?');
  return mark == std::string_view::npos ? std::string_view() : uri.substr(mark + 1);
}

std::string_view query_of_request_line(std::string_view line) noexcept {
  const std::size_t space = line.rfind(' ');
  if (space != std::string_view::npos && line.substr(space + 1).starts_with("HTTP/")) {
    line = line.substr(0, space);
  }
  return query_of_uri(line);
}

bool edit_query(ngx_pool_t* pool, ngx_str_t& text, std::string_view query, std::string_view name,
                QueryEdit edit) noexcept {
  const std::size_t pairs = count_pairs(query, name);
  if (pairs == 0) {
    return true;
  }
  const std::string_view old = view(text);
  auto* memory = static_cast<u_char*>(ngx_pnalloc(pool, old.size() + pairs * kRedactedSize));
  if (memory == nullptr) {
    return false;
  }
  Copy copy{memory};
  copy.add(between(old.data(), query.data()));
  u_char* const start = copy.at;
  const char* copied = query.data();
  std::string_view rest = query;
  for (NamedValue found; next_in_query(rest, name, found);) {
    const std::string_view gone = edit == QueryEdit::cut ? found.whole : found.value;
    copy.add(between(copied, gone.data()));
    if (edit == QueryEdit::redact) {
      std::array<char, kRedactedSize> redacted;
      copy.add(redact_value(found.value, redacted));
    }
    copied = gone.data() + gone.size();
  }
  copy.add(between(copied, query.data() + query.size()));
  if (copy.at == start && start > memory && start[-1] == '?') {
    --copy.at;
  }
  copy.add(between(query.data() + query.size(), old.data() + old.size()));
  text = {static_cast<std::size_t>(copy.at - memory), memory};
  return true;
}

void overwrite_values(const ngx_str_t& text, std::string_view query, std::string_view name) noexcept {
  for (NamedValue found; next_in_query(query, name, found);) {
    ngx_memset(text.data + (found.value.data() - view(text).data()), '*', found.value.size());
  }
}

}  // namespace apikey::nginx
