// How the search ranks pages. Sphinx ranks every page with a query's words in its text alike; here pages whose title or search words
// (docs/_ext/search_words.py) have them too come before, and guides before the page of a single name and the changelog.
"use strict";

var Scorer = {
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,

  perWord: 4, // for each word of the query that the guide is about
  name: -3, // the page of a single name, unless the query is that name
  changelog: -6,

  // The stems of what each page is about: its title and its search words.
  subjects: () => {
    if (Scorer._subjects) return Scorer._subjects;
    const stemmer = new Stemmer();
    const pages = Search._index.titles.map(() => new Set());
    const add = (page, text) => splitQuery(text.toLowerCase()).forEach((word) => pages[page].add(stemmer.stemWord(word)));
    Search._index.titles.forEach((title, page) => add(page, title));
    for (const [entry, places] of Object.entries(Search._index.indexentries))
      for (const [page, , isMain] of places) if (isMain) add(page, entry);
    return (Scorer._subjects = pages);
  },

  score: ([name, , , , score]) => {
    if (name.startsWith("reference/generated/")) return score + Scorer.name;
    if (name === "_pages/changelog") return score + Scorer.changelog;
    const query = new URLSearchParams(window.location.search).get("q") || "";
    const subjects = Scorer.subjects()[Search._index.docnames.indexOf(name)];
    return score + Scorer.perWord * [...Search._parseQuery(query)[1]].filter((stem) => subjects.has(stem)).length;
  },
};
