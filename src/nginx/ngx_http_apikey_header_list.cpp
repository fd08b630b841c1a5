// Takes a line out of an ngx_list_t without moving any other, because headers_in points to its elements.
// Called in the preaccess phase. What nginx's loops rely on is kept: no part but the first is ever empty (they read the
// first element of the next part unseen), and nalloc never promises more room than the last part has (ngx_list_push).
#include "ngx_http_apikey_header_list.hpp"

namespace apikey::nginx {
namespace {

// The only element of its part: the part goes. The first part lives in the list itself, so the second moves there.
void unlink_part(ngx_list_t& list, ngx_list_part_t* part, ngx_list_part_t* before) noexcept {
  if (before == nullptr) {
    if (part->next == nullptr) {
      part->nelts = 0;
      return;
    }
    if (list.last == part->next) {
      list.last = part;
    }
    *part = *part->next;
    return;
  }
  before->next = part->next;
  if (list.last == part) {
    list.last = before;
    list.nalloc = before->nelts;
  }
}

// An element with others before and behind it: those behind become a part of their own, where they are.
bool split_part(ngx_list_t& list, ngx_list_part_t* part, std::size_t index) noexcept {
  auto* tail = static_cast<ngx_list_part_t*>(ngx_palloc(list.pool, sizeof(ngx_list_part_t)));
  if (tail == nullptr) {
    return false;
  }
  tail->elts = elements<ngx_table_elt_t>(part).data() + index + 1;
  tail->nelts = part->nelts - index - 1;
  tail->next = part->next;
  part->nelts = index;
  part->next = tail;
  if (list.last == part) {
    list.last = tail;
    list.nalloc = tail->nelts;
  }
  return true;
}

bool remove_element(ngx_list_t& list, ngx_list_part_t* part, ngx_list_part_t* before, std::size_t index) noexcept {
  if (part->nelts == 1) {
    unlink_part(list, part, before);
    return true;
  }
  if (index + 1 == part->nelts) {
    --part->nelts;
    return true;
  }
  if (index > 0) {
    return split_part(list, part, index);
  }
  part->elts = elements<ngx_table_elt_t>(part).data() + 1;
  --part->nelts;
  if (list.last == part) {
    list.nalloc = part->nelts;
  }
  return true;
}

bool remove_from_list(ngx_list_t& list, const ngx_table_elt_t* line) noexcept {
  ngx_list_part_t* before = nullptr;
  for (ngx_list_part_t* part = &list.part; part != nullptr; before = part, part = part->next) {
    const auto all = elements<ngx_table_elt_t>(part);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (&all[i] == line) {
        return remove_element(list, part, before, i);
      }
    }
  }
  return true;
}

// The place in headers_in that nginx keeps for a header of this name; null for a header it does not know.
void* known_place(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  auto* main = static_cast<ngx_http_core_main_conf_t*>(ngx_http_get_module_main_conf(r, ngx_http_core_module));
  const auto* known = static_cast<ngx_http_header_t*>(
      ngx_hash_find(&main->headers_in_hash, line->hash, line->lowcase_key, line->key.len));
  // Offset 0 is `headers` itself: the name is known, but has no place.
  return known == nullptr || known->offset == 0 ? nullptr : static_cast<void*>(byte_at(&r->headers_in, known->offset));
}

#if (nginx_version < 1023000)

bool is_kept_in_array(std::string_view name) noexcept { return name == "cookie" || name == "x-forwarded-for"; }

void forget_in_array(ngx_array_t& lines, const ngx_table_elt_t* line) noexcept {
  const std::span<ngx_table_elt_t*> all(static_cast<ngx_table_elt_t**>(lines.elts), lines.nelts);
  std::size_t kept = 0;
  for (ngx_table_elt_t* each : all) {
    if (each != line) {
      all[kept++] = each;
    }
  }
  lines.nelts = kept;
}

void forget_known(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  void* place = known_place(r, line);
  if (place == nullptr) {
    return;
  }
  if (is_kept_in_array({text_of(line->lowcase_key), line->key.len})) {
    forget_in_array(*static_cast<ngx_array_t*>(place), line);
    return;
  }
  auto** known = static_cast<ngx_table_elt_t**>(place);
  if (*known == line) {
    *known = nullptr;
  }
}

#else

void forget_known(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  void* place = known_place(r, line);
  if (place == nullptr) {
    return;
  }
  for (auto** known = static_cast<ngx_table_elt_t**>(place); *known != nullptr; known = &(*known)->next) {
    if (*known == line) {
      *known = line->next;
      return;
    }
  }
}

#endif

}  // namespace

ngx_table_elt_t* HeaderLines::next() noexcept {
  for (; part_ != nullptr; part_ = part_->next, index_ = 0) {
    while (index_ < part_->nelts) {
      ngx_table_elt_t& line = elements<ngx_table_elt_t>(part_)[index_++];
      // nginx may have run out of memory in the middle of a line.
      if (line.hash == 0 || line.lowcase_key == nullptr) {
        continue;
      }
      if (name_.empty() || std::string_view(text_of(line.lowcase_key), line.key.len) == name_) {
        return &line;
      }
    }
  }
  return nullptr;
}

bool is_alike(const ngx_table_elt_t& line, std::string_view name) noexcept {
  if (line.key.len != name.size() || line.lowcase_key == nullptr) {
    return false;
  }
  for (std::size_t i = 0; i < name.size(); ++i) {
    const auto c = static_cast<char>(line.lowcase_key[i]);
    if ((c == '-' ? '_' : c) != name[i]) {
      return false;
    }
  }
  return true;
}

bool remove_header(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  forget_known(r, line);
  return remove_from_list(r->headers_in.headers, line);
}

}  // namespace apikey::nginx
